// detente doctor: what this build and this machine have, what is missing, and how to get it.
#include <dlfcn.h>
#include <flatbuffers/base.h>
#include <fmt/format.h>
#include <spdlog/version.h>
#include <toml++/toml.h>
#include <unistd.h>
#include <xxhash.h>
#include <zmq.h>

#include <array>
#include <boost/version.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "common/build_id.h"
#include "launch/child_process.h"
#include "launch/cli.h"
#include "launch/environment.h"
#include "launch/gpu.h"
#if __has_include("launch/torch_source.h")
#include "launch/torch_source.h"
#else
#define DETENTE_TORCH_SOURCE ""
#define DETENTE_TORCH_VERSION ""
#define DETENTE_TORCH_LIB ""
#endif

namespace detente {
namespace {

struct Finding {
    std::string what;
    bool needed = false;  // without it training cannot run
    std::string found;    // empty = missing
    std::string remedy;   // how to get it, where it is missing
};

std::string first_line_of(const std::string& text) { return text.substr(0, text.find('\n')); }

// What a tool says of its version; empty if it is not there.
std::string ask(const std::string& tool, const char* flag = "--version") {
    const auto answer = run_child({tool, flag}, "", std::chrono::seconds(5));
    if (!answer || answer->exit_code != 0) return {};
    return answer->output;
}

Finding torch() {
    Finding finding{"LibTorch", true, "",
                    "run scripts/build, which puts it under build/libtorch; or set Torch_DIR or "
                    "CMAKE_PREFIX_PATH to yours and build again"};
    const std::string folder = DETENTE_TORCH_LIB;
    if (folder.empty()) return finding;
    const std::string file = folder + "/libtorch_cpu.so";
    if (::access(file.c_str(), R_OK) != 0) {
        finding.remedy =
            fmt::format("this build was made with {}, which is gone: {}", file, finding.remedy);
        return finding;
    }
    finding.found =
        fmt::format("{}, from {} ({})", DETENTE_TORCH_VERSION, DETENTE_TORCH_SOURCE, folder);
    return finding;
}

Finding zeromq() {
    int major = 0;
    int minor = 0;
    int patch = 0;
    ::zmq_version(&major, &minor, &patch);
    return {"ZeroMQ", true, fmt::format("{}.{}.{}", major, minor, patch), ""};
}

std::vector<Finding> libraries() {
    return {
        zeromq(),
        {"FlatBuffers", true,
         fmt::format("{}.{}.{}", FLATBUFFERS_VERSION_MAJOR, FLATBUFFERS_VERSION_MINOR,
                     FLATBUFFERS_VERSION_REVISION),
         ""},
        {"Boost", true,
         fmt::format("{}.{}.{}", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000,
                     BOOST_VERSION % 100),
         ""},
        {"toml++", true, fmt::format("{}.{}.{}", TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH),
         ""},
        {"spdlog", true,
         fmt::format("{}.{}.{}", SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH), ""},
        {"xxHash", true,
         fmt::format("{}.{}.{}", XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE), ""},
    };
}

// A function `int name(int*)` of a library that may not be there; nothing if it is not.
std::optional<int> number_from(const std::vector<std::string>& libraries, const char* function) {
    for (const std::string& library : libraries) {
        void* handle = ::dlopen(library.c_str(), RTLD_LAZY | RTLD_LOCAL);
        if (handle == nullptr) continue;
        const auto call = reinterpret_cast<int (*)(int*)>(::dlsym(handle, function));
        int value = 0;
        const bool answered = call != nullptr && call(&value) == 0;
        ::dlclose(handle);
        if (answered) return value;
    }
    return std::nullopt;
}

std::string cuda_home() {
    if (const auto home = process_variable("CUDA_HOME")) return *home;
    return "/usr/local/cuda";
}

Finding cuda_toolkit() {
    Finding finding{"CUDA toolkit", false, "",
                    "only to build what averages layers on GPUs: install NVIDIA's toolkit, or set "
                    "CUDA_HOME"};
    const std::string compiler = cuda_home() + "/bin/nvcc";
    const std::string answer = ask(::access(compiler.c_str(), X_OK) == 0 ? compiler : "nvcc");
    const std::size_t at = answer.find("release ");
    if (at != std::string::npos) {
        finding.found = fmt::format("{} ({})", answer.substr(at + 8, answer.find(',', at) - at - 8),
                                    cuda_home());
    }
    return finding;
}

Finding cuda_driver() {
    Finding finding{"CUDA driver", false, "", "only for models on a GPU: install NVIDIA's driver"};
    const auto version = number_from({kGpuDriver}, "cuDriverGetVersion");
    if (!version) return finding;
    const auto gpus = count_gpus();
    finding.found = fmt::format(
        "{}.{}, {}", *version / 1000, *version % 1000 / 10,
        gpus ? fmt::format("{} GPU{}", *gpus, *gpus == 1 ? "" : "s") : gpus.error().text);
    return finding;
}

Finding nccl() {
    Finding finding{"NCCL", false, "",
                    "only for layers in step on GPUs: apt-get install libnccl2, or put it under "
                    "CUDA_HOME"};
    const auto version = number_from(
        {"libnccl.so.2", cuda_home() + "/lib64/libnccl.so.2", cuda_home() + "/lib/libnccl.so.2"},
        "ncclGetVersion");
    if (version) {
        finding.found =
            fmt::format("{}.{}.{}", *version / 10000, *version / 100 % 100, *version % 100);
    }
    return finding;
}

// Debian keeps both side by side; elsewhere there is one mpirun, which says whose it is.
std::vector<Finding> launchers() {
    Finding open{"Open MPI", false, "", "only to launch by mpirun: apt-get install openmpi-bin"};
    Finding mpich{"MPICH", false, "", "only to launch by mpirun: apt-get install mpich"};
    for (const char* tool : {"mpirun.openmpi", "mpirun.mpich", "mpirun", "mpiexec.hydra"}) {
        const std::string answer = ask(tool);
        const bool is_open = answer.find("Open MPI") != std::string::npos ||
                             answer.find("OpenRTE") != std::string::npos;
        if (is_open && open.found.empty()) {
            const std::string line = first_line_of(answer);
            open.found = fmt::format("{} ({})", line.substr(line.rfind(' ') + 1), tool);
        }
        const std::size_t at = answer.find("Version:");
        if (!is_open && at != std::string::npos && mpich.found.empty()) {
            const std::string line = first_line_of(answer.substr(at));
            mpich.found = fmt::format("{} ({})", line.substr(line.rfind(' ') + 1), tool);
        }
    }
    Finding slurm{"Slurm", false, first_line_of(ask("srun")),
                  "only to launch by srun: apt-get install slurm-client"};
    return {open, mpich, slurm};
}

// Linked, not loaded: without its symbol this process has the C library's.
Finding allocator() {
    Finding finding{"tcmalloc", false, "",
                    "only for faster simulations: apt-get install libtcmalloc-minimal4, and build "
                    "again"};
    const auto version = reinterpret_cast<const char* (*)(int*, int*, const char**)>(
        ::dlsym(RTLD_DEFAULT, "tc_version"));
    if (version != nullptr) finding.found = version(nullptr, nullptr, nullptr);
    return finding;
}

Finding ccache() {
    return {"ccache", false, first_line_of(ask("ccache")),
            "only to build faster the second time: apt-get install ccache"};
}

int print_findings() {
    std::vector<Finding> findings = {torch()};
    for (Finding& finding : libraries()) findings.push_back(std::move(finding));
    findings.push_back(cuda_toolkit());
    findings.push_back(cuda_driver());
    findings.push_back(nccl());
    for (Finding& finding : launchers()) findings.push_back(std::move(finding));
    findings.push_back(allocator());
    findings.push_back(ccache());

    fmt::print("{:<14}{}\n", "detente", build_description());
    bool complete = true;
    for (const Finding& finding : findings) {
        const bool missing = finding.found.empty();
        if (missing && finding.needed) complete = false;
        fmt::print("{:<14}{}\n", finding.what,
                   !missing         ? finding.found
                   : finding.needed ? "MISSING: " + finding.remedy
                                    : "not found (" + finding.remedy + ")");
    }
    fmt::print("{}\n", complete ? "Nothing that is needed is missing."
                                : "Something that is needed is missing: see above.");
    return complete ? 0 : value_of(ExitCode::usage);
}

}  // namespace

void add_doctor_verb(CLI::App& app, int& exit_code) {
    CLI::App* verb = app.add_subcommand(
        "doctor", "Says what this build and machine have, what is missing and how to get it");
    verb->callback([&exit_code] { exit_code = print_findings(); });
}

}  // namespace detente
