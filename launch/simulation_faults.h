// The faults of a job's [[simulate.fault]]: what they name, and whether they can be.
#pragma once

#include <string>
#include <vector>

#include "common/config.h"
#include "common/result.h"
#include "launch/job_checks.h"

namespace detente {

// "worker:2", "shard:1", "server:0" (all its shards), "coordinator". bad_job: none of this job's,
// as the end of a sentence ("must be …, found …").
Result<std::vector<NodeId>> nodes_named(const std::string& name, const Job& job);

// Of [simulate]: what no single value shows.
void check_simulation(const Job& job, std::vector<JobProblem>& problems);

}  // namespace detente
