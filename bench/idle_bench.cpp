// What a job costs while nothing happens: processor time of each process, in percent of a core,
// over some seconds in which it only waits. The worker is frozen, so that server and launcher have
// nothing to do; then the server, so that the worker waits for its answers.
//   idle_bench [--json] [--quick] PROGRAM JOB
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <thread>
#include <vector>

#include "bench/report.h"

namespace detente::bench {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// The fields of its stat after its name; the state is the first.
std::vector<std::string> stat_of(const fs::path& folder) {
    const std::string text = read(folder / "stat");
    const std::size_t end = text.rfind(')');
    if (end == std::string::npos) return {};
    std::istringstream fields(text.substr(end + 2));
    return {std::istream_iterator<std::string>(fields), {}};
}

// Nanoseconds on a core so far, of all its threads: the ticks in stat miss what takes less than
// one.
double cpu_ns(pid_t process) {
    double sum = 0;
    for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
        std::istringstream fields(read(task.path() / "schedstat"));
        double on_core = 0;
        fields >> on_core;
        sum += on_core;
    }
    return sum;
}

// "server" and "worker" of this launcher, by the verb on their command line.
std::map<std::string, pid_t> children_of(pid_t launcher) {
    std::map<std::string, pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        const auto process = static_cast<pid_t>(std::stol(name));
        const std::vector<std::string> stat = stat_of(entry.path());
        if (stat.size() < 2 || stat[1] != std::to_string(launcher)) continue;
        const std::string words = read(entry.path() / "cmdline");
        for (const char* role : {"server", "worker"}) {
            const std::string verb = std::string(1, '\0') + role + std::string(1, '\0');
            if (words.find(verb) != std::string::npos) found[role] = process;
        }
    }
    return found;
}

bool trains(const std::string& output) {
    return read(output).find("\ntrain\n") != std::string::npos;
}

double percent_of_a_core(pid_t process, std::chrono::seconds span) {
    const double before = cpu_ns(process);
    std::this_thread::sleep_for(span);
    return 100 * (cpu_ns(process) - before) / (1e9 * static_cast<double>(span.count()));
}

int run(int argc, char** argv) {
    Options options = parse_options(argc, argv, "idle_bench PROGRAM JOB: a job that only waits");
    if (options.rest.size() != 2) {
        std::fprintf(stderr,
                     "usage: idle_bench [--json] [--quick] PROGRAM JOB, as in\n"
                     "  idle_bench build/release/detente "
                     "examples/multifashion/multifashion.toml\n");
        return 2;
    }
    char folder_name[] = "/tmp/detente-bench-XXXXXX";
    if (::mkdtemp(folder_name) == nullptr) return 1;
    const std::string folder = folder_name;
    const std::string output = folder + "/output";
    const pid_t launcher = ::fork();
    if (launcher == 0) {
        if (std::freopen(output.c_str(), "w", stdout) == nullptr) std::_Exit(126);
        const std::string out = folder + "/run";
        ::execl(options.rest[0].c_str(), "detente", "run", options.rest[1].c_str(), "--set",
                "servers=1", "--set", "workers=1", "--set", "data.epochs=1000", "--set",
                "deadlines.peer_s=600", "--out", out.c_str(), nullptr);
        std::_Exit(127);
    }
    std::map<std::string, pid_t> processes;
    for (int i = 0; i < 6000 && (processes.size() < 2 || !trains(output)); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        processes = children_of(launcher);
    }
    int code = 0;
    if (processes.size() < 2 || !trains(output)) {
        std::fprintf(stderr, "idle_bench: no training within 60 s: %s\n", read(output).c_str());
        code = 1;
    } else {
        const std::chrono::seconds span(options.quick ? 3 : 15);
        const std::chrono::seconds settle(1);
        Report report("A job that only waits", options);
        const auto add = [&](const char* name, pid_t process) {
            report.add(
                {name, percent_of_a_core(process, span), "% of a core", 1.0, "limit: the aim"});
        };
        std::this_thread::sleep_for(settle);
        ::kill(processes["worker"], SIGSTOP);
        std::this_thread::sleep_for(settle);
        add("server, while its worker is frozen", processes["server"]);
        add("launcher, while the worker is frozen", launcher);
        ::kill(processes["server"], SIGSTOP);
        ::kill(processes["worker"], SIGCONT);
        std::this_thread::sleep_for(settle);
        add("worker, while its server is frozen", processes["worker"]);
        report.print();
    }
    // The children go with their launcher; a stopped one, too.
    ::kill(launcher, SIGKILL);
    ::waitpid(launcher, nullptr, 0);
    fs::remove_all(folder);
    return code;
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) { return detente::bench::run(argc, argv); }
