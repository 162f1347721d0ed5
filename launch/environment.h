// Which rank of how many this process is, as the launcher that started it says.
//
// Order of trust: flags, DETENTE_*, RANK/WORLD_SIZE/LOCAL_RANK (torchrun), OMPI_COMM_WORLD_* (Open
// MPI), PMI_* (MPICH) and PMIX_RANK, SLURM_* (srun). The first family that is there is used; the
// others must say the same rank, size and rank within the host, or it is an error. Likewise of the
// coordinator's place: --coordinator, DETENTE_COORDINATOR, MASTER_ADDR with MASTER_PORT.
//
// Inherited variables are no contradiction: those of a launcher that started the launcher which
// started this process. They are not looked at. The rule:
//   - where torchrun's agent started it (RANK, and TORCHELASTIC_RUN_ID): mpirun's, PMIx's and
//     Slurm's, which placed the agent; and MASTER_ADDR where the agent keeps its own store there
//     (TORCHELASTIC_USE_AGENT_STORE) and another place is told;
//   - where mpirun's are there (OMPI_COMM_WORLD_*, PMI_*, or a PMIX_RANK that is not the step's):
//     Slurm's, those of mpirun's daemons, and a PMIX_RANK that is the step's (equals SLURM_PROCID);
//   - SLURM_PROCID without SLURM_STEP_ID: of an allocation's batch script, which is no rank;
//   - a launch of one process, below another source: no job is one process, so it is a shell's in
//   an
//     allocation, or one `srun -n 1` for each rank.
//
// Thread: pure, but for the one look at who is behind PMI_FD; the only place where a rank's
// variables are read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/result.h"

namespace detente {

// The environment, or a test's stand-in for it.
using Variables = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> process_variable(const char* name);

struct RankFlags {  // --rank, --size, --coordinator
    std::optional<std::uint32_t> rank;
    std::optional<std::uint32_t> size;
    std::optional<std::string> coordinator;
};

struct Placement {
    std::uint32_t rank = 0;
    std::uint32_t size = 1;
    std::optional<std::uint32_t> local_rank;  // within the host
    // Whether this launch's ranks are on more than this host; none: the launcher does not say.
    std::optional<bool> several_hosts;
    // For people: "Open MPI's OMPI_COMM_WORLD_RANK = 2 and OMPI_COMM_WORLD_SIZE = 6".
    std::string source;
    // Where the coordinator (rank 0) can be found, if the environment says: --coordinator or
    // DETENTE_COORDINATOR (HOST:PORT), MASTER_ADDR with MASTER_PORT, or the first host of Slurm's
    // step (no port). Where torchrun's agent keeps MASTER_PORT for itself
    // (TORCHELASTIC_USE_AGENT_STORE), that is the host only.
    std::string coordinator_host;  // empty = not said
    std::optional<std::uint16_t> coordinator_port;
    std::string coordinator_source;  // for people; empty = not said
    // The same for every rank of one launch and different between launches, where the launcher has
    // such a thing (DETENTE_LAUNCH_KEY, TORCHELASTIC_RUN_ID with MASTER_PORT, because the id is
    // "none" for all that name none, PMIX_NAMESPACE, PMI_JOBID,
    // SLURM_JOB_ID and _STEP_ID; under MPICH, with all ranks on this host, the process at the other
    // end of PMI_FD); else empty.
    std::string launch_key;
};

// Nothing: no launcher's variable is set. bad_job: a value that is no number, a rank without a
// size, a rank not below its size, or two sources that contradict each other (both are named).
Result<std::optional<Placement>> find_placement(const RankFlags& flags, const Variables& variables);

}  // namespace detente
