// The lives of a run's processes: a server with its shards, a worker with its engine, an
// evaluation.
//
// A server or worker connects to the coordinator, opens its loops, says hello, waits for the
// welcome, builds its nodes, runs them, and ends. It ends too when the control connection does,
// or is silent for twice deadlines.peer_s: nobody outlives the coordinator. While it loads, its
// heartbeats are sent for it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "launch/control_client.h"
#include "launch/exit_code.h"

namespace detente {

struct RoleOptions {
    std::uint32_t rank = 0;      // within the role
    std::string resume;          // checkpoint directory; empty = none
    Incarnation incarnation{1};  // worker: above those of the run that is resumed
    bool log_to_file = false;    // under mpirun: RUN/<role>-<rank>.log
    std::string placement;       // likewise: who said which rank this is; the log's first line
    std::optional<std::uint32_t> local_rank;  // likewise: within the host
    // Where servers listen, and what their peers connect to, if not as the job says (transport.
    // bind_address, advertise_address): empty = as it does. Ranks may be on other hosts.
    std::string bind;
    std::string advertise;
    bool several_hosts = false;
};

// Connects with patience; for processes that `run` started.
Result<std::unique_ptr<ControlClient>> connect_to(const std::string& coordinator);

ExitCode run_server(std::unique_ptr<ControlClient> control, const RoleOptions& options);
ExitCode run_worker(std::unique_ptr<ControlClient> control, const RoleOptions& options);

// Scores a checkpoint of a run with the job's model; `number` 0 = the newest. Prints a table, or
// JSON with `json`: {"checkpoint": 1, "tasks": {"a": {"accuracy": …, "loss": …, "samples": …}}}.
ExitCode run_evaluation(const std::string& run_dir, std::uint64_t number, bool json);

std::string this_host();

}  // namespace detente
