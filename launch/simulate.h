// What `detente simulate` does: one run on virtual time, from the job file to the exit code.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "launch/exit_code.h"
#include "launch/job_arguments.h"

namespace detente {

struct SimulateOptions {
    JobArguments job;
    std::optional<std::uint64_t> seed;  // instead of the job's
    std::string resume;                 // a run's folder or a checkpoint's; empty = begins anew
    std::string out;                    // run directory; empty = runs/<name>-simulated-<time>
    std::uint32_t threads = 0;          // that compute; 0 = one per core, or 1 for builtin models
    bool check_determinism = false;     // runs twice, and names the first event that differs
    bool gaps = false;                  // afterwards, by a replay (launch/replay/gap_table.h)
};

ExitCode simulate_job(const SimulateOptions& options);

}  // namespace detente
