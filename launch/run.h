// One run, from the job file to the exit code: what `detente run` does, and what rank 0 of
// `detente join` does, which starts no processes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "launch/coordinator_loop.h"
#include "launch/exit_code.h"
#include "launch/job_arguments.h"

namespace detente {

struct RunOptions {
    JobArguments job;
    std::string out;     // run directory; empty = runs/<name>-<time>
    std::string resume;  // run or checkpoint directory; empty = from the start
    bool dry_run = false;
    std::uint16_t port = 0;  // of the control links; 0 = any free one
};

// Every process on this machine.
ExitCode run_job(const RunOptions& options);

struct Coordination {
    Job job;
    std::string out;
    std::string resume;
    bool dry_run = false;
    std::string listen_address = "127.0.0.1";
    std::string advertise_address;  // empty = listen_address
    std::uint16_t port = 0;
    bool start_processes = true;
    // The coordinator listens: tell the others where.
    std::function<Result<void>(const CoordinatorLoop&)> opened;
};
ExitCode coordinate(Coordination wanted);

}  // namespace detente
