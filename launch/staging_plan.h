// What shards keep of steps that the lead shard has not decided yet. Staging gives a push's credit
// back, or bsp would wait for itself: this memory is bounded by the job alone, and checked before
// anything is started, and before a running job changes its policy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/partition/plan.h"
#include "launch/cluster_view.h"

namespace detente {

// Most steps at once: those every worker may have open, and those the policy keeps while their
// workers go on. 0 where each shard decides by itself.
std::uint64_t most_staged_steps(const Job& job);
// "shard 0 keeps at most 3 steps until they are decided: 192000 bytes", a line each; or nothing.
std::string describe_staging(const Plan& plan, const Job& job);
// bad_job: the weights of these shards and the steps they may keep are more than `memory_bytes`,
// which is what `host` has.
Result<void> check_staging(const Plan& plan, const Job& job, const std::vector<ShardId>& shards,
                           std::uint64_t memory_bytes, const std::string& host);
// The same of every host that has shards of a running job, as their processes told: before `job` is
// what it is from then on. Who told nothing of its memory is not asked.
Result<void> check_staging(const Plan& plan, const Job& job, const ClusterView& cluster);

}  // namespace detente
