#include "tests/collectives/module_kinds.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "tests/temporary_folder.h"
#include "worker/collectives/collective_module.h"

namespace detente::testing {

namespace {

bool is_there(const std::string& program) {
    return std::system(("command -v " + program + " > /dev/null 2>&1").c_str()) == 0;
}

// Under the MPI's own launcher, with its output where it may be read if something fails.
Reports run_under(const std::string& launcher, const std::string& module,
                  const std::string& scenario, std::size_t count) {
    const TemporaryFolder folder;
    const std::string command =
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
        "LSAN_OPTIONS=" MPI_LSAN_OPTIONS
        " "
        "timeout -k 5 60 " +
        launcher + " -n " + std::to_string(count) + " '" + COLLECTIVE_MEMBER + "' '" + module +
        "' " + scenario + " '" + folder.path() + "' > '" + folder / "output" + "' 2>&1 < /dev/null";
    const int status = std::system(command.c_str());
    Reports reports(count);
    for (std::size_t i = 0; i < count; ++i) {
        std::ifstream file(folder / std::to_string(i));
        for (std::string line; std::getline(file, line);) reports[i].push_back(line);
        if (status != 0) {
            reports[i].push_back(launcher + " ended with status " + std::to_string(status) + ": " +
                                 bytes_of_file(folder / "output"));
        }
    }
    return reports;
}

Kind mpi_kind(const std::string& name, const std::string& launcher, const std::string& arguments,
              const std::string& module) {
    Kind kind{name, {}, false, false, {}};
    if (module.empty()) kind.left_out = "not built: its -dev package was not there";
    if (kind.left_out.empty() && !is_there(launcher)) kind.left_out = launcher + " is not there";
    const std::string command = launcher + arguments;
    kind.run = [command, module](const std::string& scenario, std::size_t count) {
        return run_under(command, module, scenario, count);
    };
    return kind;
}

Kind nccl_kind() {
    Kind kind{"nccl over the stand-in", {}, false, true, {}};
    if (std::string(NCCL_MODULE).empty()) kind.left_out = "not built: CUDA with NCCL was not there";
    kind.run = [](const std::string& scenario, std::size_t count) {
        return run_in_processes(nccl_over_standin(unique_run()), scenario, count);
    };
    return kind;
}

// The contract's members at most.
constexpr std::size_t kMostMembers = 5;

// NCCL itself. Members share GPUs where there are fewer, if NCCL is told to let them.
Kind nccl_on_gpus_kind() {
    Kind kind{"nccl on this machine's GPUs", {}, false, true, {}};
    const char* shared = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    if (std::string(NCCL_MODULE).empty()) {
        kind.left_out = "not built: CUDA with NCCL was not there";
    } else if (gpus_here() == 0) {
        kind.left_out = "no GPU here";
    } else if (gpus_here() < kMostMembers && (shared == nullptr || std::string(shared) != "1")) {
        kind.left_out = "takes " + std::to_string(kMostMembers) + " GPUs, and " +
                        std::to_string(gpus_here()) +
                        " are here: NCCL 2.30 and newer share one where "
                        "NCCL_MULTI_RANK_GPU_ENABLE=1 is set";
    }
    kind.run = [](const std::string& scenario, std::size_t count) {
        return run_in_processes(nccl_on_gpus(unique_run()), scenario, count);
    };
    return kind;
}

MakeBackend nccl_over(const std::string& run,
                      const std::vector<std::pair<std::string, std::string>>& libraries) {
    if (std::string(NCCL_MODULE).empty()) return {};
    return [run, libraries] {
        CollectiveOptions options{run, libraries};
        // A device for each.
        const char* member = std::getenv(kMemberVariable);
        if (member != nullptr) options.options.emplace_back("place", member);
        auto backend = load_collectives(NCCL_MODULE, options);
        if (backend.has_error()) throw std::runtime_error(backend.error().text);
        return std::move(*backend);
    };
}

}  // namespace

std::size_t gpus_here() {
    std::size_t count = 0;
    while (::access(("/dev/nvidia" + std::to_string(count)).c_str(), F_OK) == 0) ++count;
    return count;
}

MakeBackend nccl_on_gpus(const std::string& run) { return nccl_over(run, {}); }

MakeBackend nccl_over_standin(const std::string& run) {
    return nccl_over(run, {{"nccl_library", NCCL_STANDIN}, {"cuda_library", NCCL_STANDIN}});
}

std::vector<Kind> module_kinds() {
    std::vector<Kind> kinds = {
        nccl_kind(), nccl_on_gpus_kind(),
        mpi_kind("Open MPI", "mpirun.openmpi", " --oversubscribe", OPENMPI_MODULE),
        mpi_kind("MPICH", "mpirun.mpich", "", MPICH_MODULE)};
#ifdef __SANITIZE_THREAD__
    kinds.back().left_out = "its library crashes at its beginning under ThreadSanitizer";
#endif
    return kinds;
}

}  // namespace detente::testing
