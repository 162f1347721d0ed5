#include "launch/join.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "common/file.h"
#include "launch/addresses.h"
#include "launch/collective_backend.h"
#include "launch/job.h"
#include "launch/latest_checkpoint.h"
#include "launch/rendezvous.h"
#include "launch/roles.h"
#include "launch/run_directory.h"

namespace detente {

namespace fs = std::filesystem;

Result<JoinRole> role_of(const Placement& placement, const Job& job) {
    const std::uint32_t needed = 1 + job.servers + job.workers;
    if (placement.size != needed) {
        return fail(
            ErrorCode::bad_job,
            fmt::format("{} ranks were started ({}), but this job needs {}: 1 coordinator, {} "
                        "servers, {} workers; start it with -n {}, or change servers or "
                        "workers",
                        placement.size, placement.source, needed, job.servers, job.workers,
                        needed));
    }
    if (placement.rank == 0) return JoinRole{Role::coordinator, 0};
    if (placement.rank <= job.servers) return JoinRole{Role::shard, placement.rank - 1};
    return JoinRole{Role::worker, placement.rank - 1 - job.servers};
}

std::string rendezvous_file(const std::string& out, const Job& job, const Placement& placement) {
    fs::path run = fs::path(out).lexically_normal();
    if (!run.empty() && !run.has_filename()) run = run.parent_path();  // "runs/x/"
    const fs::path folder = out.empty() ? fs::path("runs") : run.parent_path();
    // Nothing of this process's own, like its parent's pid: ranks on another host, or within a
    // script of their own, have other parents, and would wait for a file that nobody writes.
    std::string name = fmt::format(".join-{}-{}", job.name, placement.size);
    for (std::string part : {placement.launch_key, run.filename().string()}) {
        std::replace(part.begin(), part.end(), '/', '_');
        if (!part.empty()) name += "-" + part;
    }
    return (folder / name).string();
}

namespace {

ExitCode refuse(const Error& error) {
    std::fprintf(stderr, "detente join: %s\n", error.text.c_str());
    return exit_code_of(error.code);
}

// One among many that share a screen: says who it is.
ExitCode refuse(const Placement& rank, const Error& error) {
    return refuse(fail(error.code, fmt::format("rank {} of {} on {}: {}", rank.rank, rank.size,
                                               this_host(), error.text)));
}

// Of what is the same for a host's ranks (the job file, the program's modules) one rank per host
// speaks: rank 0 cannot know what another host lacks, and all of them would fill the screen. Ranks
// whose launcher does not number them within their host each speak.
ExitCode refuse_for_host(const Placement& rank, const Error& error) {
    const bool speaks = rank.rank == 0 || rank.local_rank.value_or(0) == 0;
    return speaks ? refuse(rank, error) : exit_code_of(error.code);
}

// The coordinator's place, if every rank is told.
std::optional<HostPort> told_where(const Placement& placement, const Job& job) {
    if (placement.coordinator_host.empty()) return std::nullopt;
    const auto port = placement.coordinator_port.value_or(static_cast<std::uint16_t>(job.port));
    if (port == 0) return std::nullopt;
    return HostPort{placement.coordinator_host, port};
}

// Whether ranks may be on other hosts: as the launcher says, else by where rank 0 is said to be.
bool spans_hosts(const Placement& placement) {
    const std::string& host = placement.coordinator_host;
    return placement.several_hosts.value_or(!host.empty() && !is_loopback(host));
}

// Of this rank alone (--bind, --advertise, their variables); empty = as the job says.
std::string own_wish(const std::string& flag, const Variables& variables, const char* name) {
    return !flag.empty() ? flag : variables(name).value_or("");
}

struct OwnWishes {
    std::string bind;
    std::string advertise;
};
OwnWishes own_wishes(const JoinOptions& options, const Variables& variables) {
    return {own_wish(options.bind, variables, "DETENTE_BIND_ADDRESS"),
            own_wish(options.advertise, variables, "DETENTE_ADVERTISE_ADDRESS")};
}

Result<Listening> coordinator_listening(const Job& job, const Placement& placement,
                                        const OwnWishes& own, const std::optional<HostPort>& told) {
    ListeningWish wish;
    wish.bind = own.bind.empty() ? job.bind_address : own.bind;
    wish.advertise = own.advertise.empty() ? job.advertise_address : own.advertise;
    wish.several_hosts = spans_hosts(placement);
    // A name the others were told may stand for any of this host's addresses, or for none of them.
    if (told && wish.bind == "auto" && !is_loopback(told->host)) wish.bind = "0.0.0.0";
    if (told && wish.bind == "auto") wish.bind = "127.0.0.1";
    return listening(wish, own_interfaces());
}

ExitCode coordinate_rank(const JoinOptions& options, const Job& job, const Placement& placement,
                         const OwnWishes& own) {
    Coordination wanted;
    wanted.job = job;
    wanted.out = options.run.out;
    wanted.resume = options.run.resume;
    wanted.dry_run = options.run.dry_run;
    wanted.start_processes = false;
    // Whoever reads what this rank prints may be gone: the run ends in order all the same.
    ::signal(SIGPIPE, SIG_IGN);
    std::printf("rank 0 of %u is the coordinator (%s)\n", placement.size, placement.source.c_str());
    if (wanted.dry_run) return coordinate(wanted);
    const auto told = told_where(placement, job);
    auto where = coordinator_listening(job, placement, own, told);
    if (where.has_error()) return refuse(placement, where.error());
    wanted.listen_address = where->bind;
    wanted.advertise_address = where->advertise;
    wanted.port = told ? told->port : static_cast<std::uint16_t>(job.port);
    if (told) {
        wanted.opened = [&](const CoordinatorLoop&) -> Result<void> {
            std::printf("found at %s:%u (%s)\n", told->host.c_str(), unsigned{told->port},
                        placement.coordinator_source.c_str());
            return {};
        };
        return coordinate(wanted);
    }
    const std::string file = rendezvous_file(options.run.out, job, placement);
    auto rendezvous = Rendezvous::hold(file);
    if (rendezvous.has_error()) return refuse(placement, rendezvous.error());
    wanted.opened = [&](const CoordinatorLoop& loop) -> Result<void> {
        // scripts/launch reads this line.
        std::printf("found at %s (by the file %s)\n", loop.control_address().c_str(), file.c_str());
        std::fflush(stdout);
        return rendezvous->announce(loop.control_address());
    };
    return coordinate(wanted);
}

// Reads the file and connects, again and again: it may not be there yet, or be an older run's.
Result<std::unique_ptr<ControlClient>> connect_by_file(const std::string& file, Nanos deadline,
                                                       NodeId speaks_for) {
    const auto until = std::chrono::steady_clock::now() + deadline;
    Error last = fail(ErrorCode::timed_out, "");
    while (std::chrono::steady_clock::now() < until) {
        const auto text = read_text(file, 4096);
        if (text.has_value()) {
            auto control = ControlClient::connect(text->substr(0, text->find('\n')),
                                                  std::chrono::milliseconds(500), speaks_for);
            if (control.has_value()) return control;
            last = control.error();
            if (last.code == ErrorCode::wrong_build) return last;
        } else {
            last = text.error();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return fail(
        ErrorCode::timed_out,
        fmt::format("rank 0 was not found within {:.1f} s (deadlines.start_s) through {}: {}; "
                    "every rank must see that folder, or set DETENTE_COORDINATOR=host:port",
                    std::chrono::duration<double>(deadline).count(), file, last.text));
}

ExitCode serve_rank(const JoinOptions& options, const Job& job, const Placement& placement,
                    const JoinRole& role, const OwnWishes& own) {
    // The launcher tells every rank of a signal; what to do about it is the coordinator's word.
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGTERM, SIG_IGN);
    const NodeId node = role.role == Role::worker
                            ? node_of(WorkerId{role.rank})
                            : node_of(ShardId{role.rank * job.shards_per_server});
    const auto told = told_where(placement, job);
    auto control = told ? ControlClient::connect(fmt::format("{}:{}", told->host, told->port),
                                                 job.start_deadline, node)
                        : connect_by_file(rendezvous_file(options.run.out, job, placement),
                                          job.start_deadline, node);
    if (control.has_error()) return refuse(placement, control.error());
    RoleOptions role_options;
    role_options.rank = role.rank;
    role_options.log_to_file = true;
    role_options.bind = own.bind;
    role_options.advertise = own.advertise;
    role_options.several_hosts = spans_hosts(placement);
    role_options.local_rank = placement.local_rank;
    role_options.placement =
        fmt::format("rank {} of {} is {} {} ({})", placement.rank, placement.size,
                    role.role == Role::worker ? "worker" : "server", role.rank, placement.source);
    if (!options.run.resume.empty()) {
        const auto found = find_checkpoint(options.run.resume);
        if (found.has_error()) return refuse(placement, found.error());
        role_options.resume = found->directory;
        role_options.incarnation = next(found->newest_incarnation);
    }
    if (role.role == Role::worker) return run_worker(std::move(*control), role_options);
    return run_server(std::move(*control), role_options);
}

struct RankTask {
    Job job;
    JoinRole role;
};
Result<RankTask> task_of(const JoinOptions& options, const Placement& placement) {
    auto job = read_job(options.run.job);
    if (job.has_error()) return job.error();
    const auto role = role_of(placement, *job);
    if (role.has_error()) return role.error();
    if (const auto told = told_where(placement, *job)) {
        const auto usable = parse_address(fmt::format("{}:{}", told->host, told->port));
        if (usable.has_error()) {
            return fail(usable.error().code,
                        fmt::format("{}: {}", placement.coordinator_source, usable.error().text));
        }
    }
    return RankTask{std::move(*job), *role};
}

// A dry run without a launcher: what it would need.
ExitCode plan_alone(const JoinOptions& options) {
    const auto job = read_job(options.run.job);
    if (job.has_error()) return refuse(job.error());
    Coordination wanted;
    wanted.job = *job;
    wanted.resume = options.run.resume;
    wanted.dry_run = true;
    const ExitCode code = coordinate(wanted);
    if (code == ExitCode::ok) {
        std::printf("to start it: mpirun -n %u detente join %s\n", 1 + job->servers + job->workers,
                    options.run.job.job_file.c_str());
    }
    return code;
}

}  // namespace

ExitCode join_running(const JoinOptions& options) {
    std::string address = options.flags.coordinator.value_or("");
    if (address.empty()) {
        const RunDirectory run{options.run.out.empty() ? "runs/latest" : options.run.out};
        const auto text = read_text(run.coordinator_file(), 4096);
        if (text.has_error()) {
            return refuse(fail(ErrorCode::io,
                               fmt::format("{}; name the running job's directory with --out, or "
                                           "its coordinator with --coordinator HOST:PORT",
                                           text.error().text)));
        }
        address = text->substr(0, text->find('\n'));
    }
    auto control = connect_to(address);
    if (control.has_error()) return refuse(control.error());
    if ((*control)->vacancies().empty()) {
        return refuse(
            fail(ErrorCode::bad_job,
                 fmt::format("no place is free in the job at {}: a worker joins while "
                             "training runs, in the place of one that was lost or drained, or in "
                             "one of those that the job's `places` has beyond its `workers`",
                             address)));
    }
    const Endpoint place = (*control)->vacancies().front();
    std::printf("joins as %s, incarnation %u\n", to_string(place.node).c_str(),
                place.incarnation.value);
    std::fflush(stdout);
    RoleOptions role;
    role.rank = place.node.index;
    role.incarnation = place.incarnation;
    role.log_to_file = true;
    return run_worker(std::move(*control), role);
}

ExitCode join_job(const JoinOptions& options, const Variables& variables) {
    if (options.worker) return join_running(options);
    const auto placement = find_placement(options.flags, variables);
    if (placement.has_error()) return refuse(placement.error());
    if (!placement->has_value() && options.run.dry_run) return plan_alone(options);
    if (!placement->has_value()) {
        return refuse(fail(ErrorCode::bad_job,
                           "no launcher's variables are set: start it as mpirun -n N detente join "
                           "JOB, or give --rank and --size; for one machine use detente run JOB"));
    }
    const Placement& rank = **placement;
    const auto task = task_of(options, rank);
    if (task.has_error()) return refuse_for_host(rank, task.error());
    const bool coordinates = task->role.role == Role::coordinator;
    if (options.run.dry_run && !coordinates) return ExitCode::ok;  // rank 0 speaks
    // Before anything waits for another rank: MPI's beginning waits for all of them.
    if (!options.run.dry_run) {
        if (auto begun = join_collectives(task->job, variables); begun.has_error()) {
            const Error& error = begun.error();
            // No module is the host's matter, MPI's own beginning the rank's.
            return error.code == ErrorCode::not_supported ? refuse_for_host(rank, error)
                                                          : refuse(rank, error);
        }
    }
    const OwnWishes own = own_wishes(options, variables);
    const ExitCode code = coordinates ? coordinate_rank(options, task->job, rank, own)
                                      : serve_rank(options, task->job, rank, task->role, own);
    leave_collectives(code);
    return code;
}

}  // namespace detente
