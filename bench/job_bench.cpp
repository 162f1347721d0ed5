// What a whole job costs beside what it must cost: a server's start and memory, and the default
// job's samples/s and processor time beside plain one-thread loops, as many as there are cores,
// side by side.
//   job_bench [--json] [--quick] PROGRAM JOB PLAIN_LOOP
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/steady_timer.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "bench/report.h"
#include "common/build_id.h"
#include "launch/control_server.h"

namespace detente::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

pid_t start(const Words& words, const std::string& output) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    if (std::freopen(output.c_str(), "w", stdout) == nullptr) std::_Exit(126);
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    std::_Exit(127);
}

double resident_mib(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/statm");
    double pages = 0;
    double resident = 0;
    file >> pages >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// Seconds of processor time so far, by role, of this run's processes (their words name the verb).
struct Processes {
    std::map<std::string, double> cpu_s;
    double server_mib = 0;
};
Processes processes_below(pid_t launcher) {
    Processes sum;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        std::ifstream stat_file(entry.path() / "stat");
        std::string text((std::istreambuf_iterator<char>(stat_file)), {});
        const std::size_t end = text.rfind(')');
        if (end == std::string::npos) continue;
        std::istringstream fields(text.substr(end + 2));
        std::string state;
        pid_t parent = 0;
        fields >> state >> parent;
        std::string skip;
        for (int i = 0; i < 9; ++i) fields >> skip;
        double user = 0;
        double system = 0;
        fields >> user >> system;
        if (parent != launcher) continue;
        std::ifstream words_file(entry.path() / "cmdline");
        const std::string words((std::istreambuf_iterator<char>(words_file)), {});
        const double ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
        for (const char* role : {"server", "worker"}) {
            if (words.find(std::string(1, '\0') + role + std::string(1, '\0')) ==
                std::string::npos) {
                continue;
            }
            sum.cpu_s[role] += (user + system) / ticks;
            if (std::string(role) == "server") {
                sum.server_mib =
                    std::max(sum.server_mib, resident_mib(static_cast<pid_t>(std::stol(name))));
            }
        }
    }
    return sum;
}

// From fork to the server's hello, which it says once its shard is bound.
void server_start(const std::string& program, const std::string& job_text, Report& report,
                  std::size_t rounds) {
    std::vector<double> milliseconds;
    std::vector<double> memory;
    for (std::size_t round = 0; round < rounds; ++round) {
        boost::asio::io_context loop;
        Message greeting;
        greeting.envelope.build = build_id();
        greeting.envelope.generation = Generation{1};
        Welcome welcome;
        welcome.job = job_text;
        welcome.model = "/tmp";
        greeting.body = std::move(welcome);
        bool hello = false;
        ControlServer server(
            loop, greeting,
            {[&](Message&& message) {
                 hello = std::holds_alternative<Hello>(message.body);
                 loop.stop();
             },
             [&](NodeId, const std::string&) { loop.stop(); },
             [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }});
        if (auto listening = server.listen("127.0.0.1", 0); !listening) {
            std::fprintf(stderr, "%s\n", listening.error().text.c_str());
            std::exit(1);
        }
        const auto began = Clock::now();
        const pid_t child = start({program, "server", "--rank", "0", "--coordinator",
                                   "127.0.0.1:" + std::to_string(server.port())},
                                  "/dev/null");
        loop.run_for(std::chrono::seconds(10));
        const auto ended = Clock::now();
        if (!hello) {
            std::fprintf(stderr, "job_bench: the server said no hello within 10 s\n");
            std::exit(1);
        }
        milliseconds.push_back(std::chrono::duration<double, std::milli>(ended - began).count());
        memory.push_back(resident_mib(child));
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
    }
    report.add({"server: start to hello", median(milliseconds), "ms", 100.0, "limit: the aim"});
    report.add({"server: memory at hello", median(memory), "MiB", 30.0, "limit: the aim"});
}

boost::json::object read_object(const std::string& path) {
    std::ifstream file(path);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    try {
        return boost::json::parse(text).as_object();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "job_bench: %s: %s\n", path.c_str(), error.what());
        std::exit(1);
    }
}

void default_job(const Words& rest, bool quick, const std::string& folder, Report& report) {
    const std::string epochs = quick ? "1" : "3";
    const std::string out = folder + "/run";
    const pid_t launcher =
        start({rest[0], "run", rest[1], "--set", "data.epochs=" + epochs, "--out", out},
              folder + "/run.txt");
    Processes last;
    int status = 0;
    while (::waitpid(launcher, &status, WNOHANG) == 0) {
        Processes now = processes_below(launcher);
        if (now.cpu_s["worker"] >= last.cpu_s["worker"] && now.cpu_s["server"] > 0) last = now;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const boost::json::object summary = read_object(out + "/summary.json");
    const double job_rate = summary.at("samples_per_s").to_number<double>();
    const double steps = summary.at("steps").to_number<double>();

    const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
    std::vector<pid_t> loops;
    for (unsigned i = 0; i < cores; ++i) {
        loops.push_back(start({rest[2], "--epochs", epochs, "--threads", "1", "--seed",
                               std::to_string(i + 1), "--json"},
                              folder + "/plain" + std::to_string(i)));
    }
    double plain_rate = 0;
    for (unsigned i = 0; i < cores; ++i) {
        ::waitpid(loops[i], nullptr, 0);
        plain_rate += read_object(folder + "/plain" + std::to_string(i))
                          .at("samples_per_s")
                          .to_number<double>();
    }
    report.add({"default job", job_rate, "samples/s", plain_rate,
                "limit: plain one-thread loops, one per core, side by side"});
    report.add({"default job: servers' processor time per step", last.cpu_s["server"] / steps * 1e3,
                "ms", last.cpu_s["worker"] / steps * 1e3, "limit: workers'; aim 0.15"});
    report.add({"default job: largest server", last.server_mib, "MiB", std::nullopt, ""});
}

int run(int argc, char** argv) {
    Options options = parse_options(
        argc, argv,
        "job_bench PROGRAM JOB PLAIN_LOOP: a server's start, and the default job beside "
        "plain loops");
    if (options.rest.size() != 3) {
        std::fprintf(stderr,
                     "usage: job_bench [--json] [--quick] PROGRAM JOB PLAIN_LOOP, as in\n"
                     "  job_bench build/release/detente "
                     "examples/multifashion/multifashion.toml "
                     "build/release/examples/plain_loop/plain_loop\n");
        return 2;
    }
    char folder_name[] = "/tmp/detente-bench-XXXXXX";
    if (::mkdtemp(folder_name) == nullptr) return 1;
    const std::string folder = folder_name;
    Report report("A whole job", options);
    const pid_t resolved = start({options.rest[0], "job", options.rest[1]}, folder + "/job.toml");
    ::waitpid(resolved, nullptr, 0);
    std::ifstream job_file(folder + "/job.toml");
    const std::string job_text((std::istreambuf_iterator<char>(job_file)), {});
    server_start(options.rest[0], job_text, report, options.quick ? 3 : 15);
    default_job(options.rest, options.quick, folder, report);
    report.print();
    std::filesystem::remove_all(folder);
    return 0;
}

}  // namespace
}  // namespace detente::bench

int main(int argc, char** argv) { return detente::bench::run(argc, argv); }
