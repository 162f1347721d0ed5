// The report as one HTML file: nothing is fetched, no script runs, and it is well-formed XML as
// well. What comes from files is escaped where it is put in.
//
// Thread: pure functions.
#pragma once

#include <string>

#include "launch/report/conflict_history.h"
#include "launch/report/run_record.h"
#include "launch/report/sweep_runs.h"
#include "launch/report/timeline.h"

namespace detente {

std::string run_page(const RunRecord& run, const Timeline& timeline,
                     const ConflictHistory& conflicts = {});
std::string sweep_page(const SweepRuns& sweep);

}  // namespace detente
