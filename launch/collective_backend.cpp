#include "launch/collective_backend.h"

#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "launch/gpu.h"
#include "launch/job.h"
#include "worker/sync_rounds.h"

namespace detente {
namespace {

// Beside the program where it was built, or where it was installed.
std::string module_path(const std::string& name) {
    const std::filesystem::path program = program_folder();
    std::error_code ignored;
    for (const char* folder : {"worker/collectives", "../lib/detente", "../lib64/detente"}) {
        const std::filesystem::path path = program / folder / (name + ".so");
        if (std::filesystem::exists(path, ignored)) return path.string();
    }
    return (program / "worker/collectives" / (name + ".so")).string();
}

// What join_collectives() began: MPI is begun and ended once in a process.
std::unique_ptr<CollectiveBackend>& begun_mpi() {
    static std::unique_ptr<CollectiveBackend> begun;
    return begun;
}

Result<std::unique_ptr<CollectiveBackend>> over_mpi(const Job& job, const Variables& variables) {
    std::string module;
    if (variables("OMPI_COMM_WORLD_RANK")) {
        module = "detente_openmpi";
    } else if (variables("PMI_RANK")) {
        module = "detente_mpich";
    } else {
        return fail(ErrorCode::not_supported,
                    "sync.backend = \"mpi\" needs a job that mpirun started: neither "
                    "OMPI_COMM_WORLD_RANK (Open MPI) nor PMI_RANK (MPICH) is set here; start it "
                    "with mpirun, or set sync.backend = \"auto\"");
    }
    // As join gives out ranks: the coordinator, the servers, the workers.
    std::string ranks;
    for (std::uint32_t worker = 0; worker < job.workers; ++worker) {
        ranks += fmt::format("{}{}={}", ranks.empty() ? "" : ",", worker, 1 + job.servers + worker);
    }
    return load_collectives(module_path(module), {"", {{"ranks", ranks}}});
}

}  // namespace

CollectiveOptions nccl_options(const Job& job, const CollectivePlace& place) {
    CollectiveOptions options;
    options.run = place.run;
    // NCCL takes one member per GPU: the one the model computes on, else one by the local rank.
    const auto number = gpu_number(place.device);
    if (number.has_value() && *number >= 0) {
        options.options.emplace_back("device", std::to_string(*number));
    } else {
        options.options.emplace_back("place", std::to_string(place.local));
    }
    if (!job.sync_nccl_library.empty()) {
        options.options.emplace_back("nccl_library", job.sync_nccl_library);
    }
    if (!job.sync_cuda_library.empty()) {
        options.options.emplace_back("cuda_library", job.sync_cuda_library);
    }
    return options;
}

SharedMemoryOptions shared_memory_for(const Job& job, const Plan& plan,
                                      const CollectivePlace& place) {
    // All who may take part at once are members at most: the size must not change with the group.
    const std::size_t round = round_bytes(plan, place.tasks, job.most_workers());
    return {place.run, arena_for(round), round};
}

Result<std::unique_ptr<CollectiveBackend>> make_collectives(const Job& job, const Plan& plan,
                                                            const CollectivePlace& place,
                                                            const Variables& variables) {
    if (job.sync_backend == SyncBackend::mpi) {
        if (begun_mpi() != nullptr) return std::move(begun_mpi());
        return over_mpi(job, variables);
    }
    if (job.sync_backend == SyncBackend::nccl) {
        return load_collectives(module_path("detente_nccl"), nccl_options(job, place));
    }
    std::unique_ptr<CollectiveBackend> backend =
        std::make_unique<SharedMemoryBackend>(shared_memory_for(job, plan, place));
    return backend;
}

Result<void> join_collectives(const Job& job, const Variables& variables) {
    if (job.sync_layers.empty() || job.sync_backend != SyncBackend::mpi) return {};
    auto begun = over_mpi(job, variables);
    if (begun.has_error()) return begun.error();
    begun_mpi() = std::move(*begun);
    return {};
}

void leave_collectives(ExitCode code) {
    if (begun_mpi() == nullptr) return;
    if (code == ExitCode::ok) return begun_mpi().reset();
    // MPI's end waits for every rank, and some may be gone or never come to it.
    std::fflush(nullptr);
    std::_Exit(value_of(code));
}

NodeReducer::NodeReducer(std::unique_ptr<CollectiveBackend> backend, WorkerId self, ZmqLoop& loop)
    : backend_(std::move(backend)),
      thread_(*backend_, self,
              {[&loop](GroupEpoch epoch, Result<void> result) {
                   loop.deliver(GroupFormed{epoch, std::move(result)});
               },
               [&loop](CollectiveEnd end) { loop.deliver(Reduced{std::move(end)}); },
               [&loop](GroupEpoch epoch, Broken broken) {
                   loop.deliver(GroupBroken{epoch, std::move(broken)});
               }}) {}

}  // namespace detente
