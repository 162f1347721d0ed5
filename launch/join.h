// `mpirun -n N detente join JOB`: every rank runs this, and gets its role from the environment
// (launch/environment.h): rank 0 is the coordinator, the next ranks the servers, the rest the
// workers; N = 1 + servers + workers.
//
// How ranks find the coordinator, in this order:
//   1. HOST:PORT that all are told: --coordinator, DETENTE_COORDINATOR, or MASTER_ADDR with
//      MASTER_PORT. Where only a host is told (MASTER_ADDR; under torchrun, whose agent keeps
//      MASTER_PORT for itself; the first host of a Slurm step), the port is transport.port, if the
//      job sets one. Rank 0 listens on that port, the others connect to that host.
//   2. a file that rank 0 writes once it listens, in the folder of the run directory (--out's, or
//      runs/), which every rank must see: ".join-<job>-<size>-<launch>-<run>" with the address.
//      Rank 0 holds it while it lives and removes it at the end (launch/rendezvous.h); one left by
//      a killed run is overwritten, and whoever read it tries again until deadlines.start_s.
// By launcher: mpirun and srun 2 (srun 1, where the job sets transport.port); torchrun likewise;
// scripts/launch 1, with the port that rank 0 told it; a Kubernetes manifest 1.
// What makes the file's name differ between launches that share a folder: <launch>, what the
// launcher calls this launch (Placement::launch_key), and <run>, the last name of --out. Either is
// left out where there is none. MPICH names no launch, so on one host its proxy's pid stands for
// one; over several hosts, and for ranks started by hand, the second of two launches that share a
// folder is refused (by its rank 0, while the first one lives): give each its own --out or
// DETENTE_LAUNCH_KEY.
// Who speaks where many ranks cannot begin: each says its own error, with its rank and host. Of
// what all ranks of a host find alike (the job file, the number of ranks, a module) the first of
// each host speaks, local rank 0; without the launcher's local ranks each does. Where ranks listen
// is in launch/addresses.h: under "auto" on loopback, unless the launcher's variables say that
// ranks are on several hosts.
#pragma once

#include <optional>
#include <string>

#include "launch/environment.h"
#include "launch/run.h"

namespace detente {

struct JoinOptions {
    RunOptions run;
    RankFlags flags;
    // --bind and --advertise, of this rank alone; empty = DETENTE_BIND_ADDRESS and
    // DETENTE_ADVERTISE_ADDRESS, else as the job says.
    std::string bind;
    std::string advertise;
    bool worker = false;  // --worker: takes a free place of a running job
};

// --worker: needs no job file, the coordinator has the job. One process that takes the place of a
// worker which was lost or has left, in a job that runs: found by --coordinator, or by the file
// `coordinator` in the run directory (--out's, or runs/latest). bad_job: no place is free.
ExitCode join_running(const JoinOptions& options);

ExitCode join_job(const JoinOptions& options, const Variables& variables);

// Who a rank is. bad_job: another number of ranks than the job needs; the text says the right one.
struct JoinRole {
    Role role = Role::coordinator;  // coordinator, shard (a server) or worker
    std::uint32_t rank = 0;         // within the role
};
Result<JoinRole> role_of(const Placement& placement, const Job& job);
std::string rendezvous_file(const std::string& out, const Job& job, const Placement& placement);

}  // namespace detente
