// Averaging in shared memory between two processes, beside Open MPI's allreduce of the same arrays
// and a plain copy of them by both at once, all in turn in one run. Without Open MPI
// (libopenmpi-dev when it was built, mpirun.openmpi now): beside the copy only.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "bench/collective_ranks.h"
#include "bench/report.h"
#include "common/invariant.h"

#ifndef COLLECTIVE_RANK
#define COLLECTIVE_RANK ""
#endif

namespace detente::bench {
namespace {

constexpr double kAim = 2.5;  // times Open MPI, at 64 MiB

std::string run_name() { return "bench-" + std::to_string(::getpid()); }

// What both ranks print under mpirun; empty: they did not run.
std::string run_under_mpi(bool quick) {
    const std::string rank = COLLECTIVE_RANK;
    if (rank.empty() || std::system("command -v mpirun.openmpi > /dev/null 2>&1") != 0) return {};
    const std::string command =
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun.openmpi --oversubscribe "
        "-n 2 '" +
        rank + "' " + run_name() + (quick ? " quick" : " full") + " < /dev/null";
    std::FILE* output = ::popen(command.c_str(), "r");
    if (output == nullptr) return {};
    std::string text;
    char bytes[4096];
    for (std::size_t got = 0; (got = std::fread(bytes, 1, sizeof bytes, output)) > 0;) {
        text.append(bytes, got);
    }
    if (::pclose(output) != 0) return {};
    return text;
}

// The two meet here when there is no MPI to do it.
struct Barrier {
    std::atomic<std::uint32_t> arrived{0};
    void pass() {
        const std::uint32_t round = arrived.fetch_add(1) / 2;
        while (arrived.load() < 2 * (round + 1)) ::usleep(0);
    }
};

RankTimes run_forked(bool quick) {
    void* shared =
        ::mmap(nullptr, sizeof(Barrier), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    invariant(shared != MAP_FAILED, "two processes can share a page");
    auto* barrier = new (shared) Barrier;
    RankSetup setup{0, run_name(), quick, [barrier] { barrier->pass(); }, {}};
    const pid_t other = ::fork();
    if (other == 0) {
        setup.rank = 1;
        measure_ranks(setup);
        ::_exit(0);
    }
    RankTimes times = measure_ranks(setup);
    ::waitpid(other, nullptr, 0);
    return times;
}

std::string size_text(std::size_t bytes) {
    return bytes >= (1U << 20U) ? fmt::format("{} MiB", bytes >> 20U)
                                : fmt::format("{} KiB", bytes >> 10U);
}

void add_size(Report& report, const Options& options, std::size_t bytes,
              const std::map<std::string, double>& seconds) {
    const auto rate = [&](const std::string& way) {
        return static_cast<double>(bytes) / seconds.at(way) / 1e9;
    };
    const auto add = [&](Figure figure) {
        if (options.wants(figure.name)) report.add(std::move(figure));
    };
    const std::string size = size_text(bytes);
    const double copy = rate("memcpy");
    add({"shared memory, in place, " + size, rate("in place"), "GB/s", copy,
         "limit: memcpy by both"});
    add({"shared memory, copied, " + size, rate("copied"), "GB/s", copy, "limit: memcpy by both"});
    if (!seconds.contains("mpi")) return;
    add({"Open MPI allreduce, " + size, rate("mpi"), "GB/s", copy, "limit: memcpy by both"});
    const bool has_aim = bytes == (1U << 26U);
    const auto aim = has_aim ? std::optional<double>(kAim) : std::nullopt;
    add({"shared memory, in place, over Open MPI, " + size,
         seconds.at("mpi") / seconds.at("in place"), "times", aim,
         has_aim ? "limit: the aim" : ""});
    add({"shared memory, copied, over Open MPI, " + size, seconds.at("mpi") / seconds.at("copied"),
         "times", aim, has_aim ? "limit: the aim" : ""});
}

int run(int argc, char** argv) {
    const Options options = parse_options(
        argc, argv, "Averages between two processes: shared memory, Open MPI, and a copy");
    Report report("Averaging between two processes, bytes of one gradient per second", options);
    RankTimes times = times_of(run_under_mpi(options.quick));
    if (times.empty()) {
        report.remark("Open MPI is not there (libopenmpi-dev, openmpi-bin): not compared with");
        times = run_forked(options.quick);
    }
    report.remark("in place: the gradient was written to the backend's memory; copied: elsewhere");
    for (const auto& [bytes, seconds] : times) add_size(report, options, bytes, seconds);
    report.print();
    return 0;
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) { return detente::bench::run(argc, argv); }
