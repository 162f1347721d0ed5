// Whole runs of real processes on loopback, with a model in plain C++.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <sstream>

#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
namespace json = boost::json;

// What a process has mapped: which libraries it ever loaded.
std::string maps_of(pid_t pid) { return bytes_of_file("/proc/" + std::to_string(pid) + "/maps"); }

TEST_CASE("run: a clean run ends with a summary, a checkpoint, logs, and 0") {
    const TinyRun run("step_ms = 8");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    // Servers and the coordinator never load the model library.
    const auto pids = run.pids();
    CHECK_THAT(maps_of(pids.at("worker:0")), Catch::Contains("tiny_model"));
    for (const pid_t pid : {pids.at("shard:0"), pids.at("shard:1"), launched.pid()}) {
        CHECK_THAT(maps_of(pid), !Catch::Contains("tiny_model") && !Catch::Contains("libtorch") &&
                                     !Catch::Contains("libc10"));
    }
    const std::string metrics = run.page("/metrics");
    CHECK_THAT(metrics, Catch::Contains("detente_up{process=\"worker:1\"") &&
                            Catch::Contains("detente_staleness_bucket{le=\"+Inf\"}"));
    REQUIRE(launched.wait(seconds(60)) == 0);

    const json::object summary = run.summary();
    CHECK_FALSE(summary.at("failed").as_bool());
    for (const char* task : {"left", "right"}) {
        const auto& score = summary.at("tasks").as_object().at(task).as_object();
        CHECK(score.at("accuracy").to_number<double>() > 0.99);
    }
    check_books(summary);
    CHECK(count(summary, "samples") == 2048);
    CHECK(count(summary.at("updates").as_object(), "lost") == 0);
    CHECK(summary.at("conflict").as_object().at("mean_cosine").to_number<double>() < 1);
    for (const char* key : {"mean", "p50", "p99", "max"}) {
        CHECK(summary.at("staleness").as_object().contains(key));
    }
    for (const char* name :
         {"job.toml", "model.json", "server-0.log", "server-1.log", "worker-0.log", "worker-1.log",
          "coordinator.log", "ledger/shard-0.1.ledger", "checkpoints/1/model.safetensors",
          "checkpoints/1/manifest.json", "best/model.safetensors"}) {
        CHECK(std::filesystem::exists(run.run_dir() + "/" + name));
    }
    CHECK(std::filesystem::read_symlink(run.folder() / "latest") == "run");
    const std::string shown = launched.output();
    CHECK_THAT(shown, Catch::Contains("test accuracy") && Catch::Contains("train") &&
                          Catch::Contains("samples/s") && Catch::Contains("100.00 %") &&
                          Catch::Contains(run.run_dir()));
}

TEST_CASE("run: a killed server ends the job within 10 s, naming the checkpoint") {
    const TinyRun run("step_ms = 10", "[checkpoint]\nevery = 64\n");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.has_checkpoint(); }));
    const auto pids = run.pids();
    ::kill(pids.at("shard:1"), SIGKILL);
    CHECK(launched.wait(seconds(10)) == value_of(ExitCode::process_lost));
    const std::string shown = launched.output();
    CHECK_THAT(shown, Catch::Contains("shard:1") &&
                          Catch::Contains("killed by signal 9 (SIGKILL)") &&
                          Catch::Contains("--resume " + run.run_dir() + "/checkpoints/") &&
                          Catch::Contains("server-1.log"));
    for (const auto& [name, pid] : pids) CHECK_FALSE(alive(pid));
    CHECK(run.summary().at("failed").as_bool());
}

TEST_CASE("run: a frozen server is named within its deadline") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    ::kill(pids.at("shard:0"), SIGSTOP);
    CHECK(launched.wait(seconds(10)) == value_of(ExitCode::deadline));
    CHECK_THAT(launched.output(), Catch::Contains("shard:0: no sign of life for 2."));
    for (const auto& [name, pid] : pids) CHECK_FALSE(alive(pid));
}

TEST_CASE("run: without a killed worker the job goes on, and its batches are leased again") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    // Killed with a lease in hand: it has computed something.
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > 3; }));
    ::kill(run.pids().at("worker:1"), SIGKILL);
    REQUIRE(launched.wait(seconds(60)) == 0);
    const json::object summary = run.summary();
    check_books(summary);
    const json::object& batches = summary.at("batches").as_object();
    CHECK(batches.at("done").to_number<double>() == 1);
    CHECK(count(batches, "leased_again") > 0);
    CHECK(count(summary, "processes_lost") == 1);
    CHECK_THAT(launched.output(), Catch::Contains("worker:1 lost: killed by signal 9 (SIGKILL)"));
}

TEST_CASE("run: with on_loss.worker = stop a killed worker ends the job, checkpoint written") {
    const TinyRun run("step_ms = 10", "[on_loss]\nworker = \"stop\"\n");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("worker:0"), SIGKILL);
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::process_lost));
    CHECK(std::filesystem::exists(run.run_dir() + "/checkpoints/1/manifest.json"));
    check_books(run.summary());
}

TEST_CASE("run: a crashing worker's own words come first") {
    const TinyRun run("crash_at = 5", "[on_loss]\nworker = \"stop\"\n");
    Launched launched(run.folder(), run.arguments({"--set", "workers=1"}));
    CHECK(launched.wait(seconds(30)) == value_of(ExitCode::process_lost));
    const std::string shown = launched.output();
    CHECK_THAT(shown, Catch::Contains("first:      worker:0") &&
                          Catch::Contains("killed by signal 6 (SIGABRT)") &&
                          Catch::Contains("the tiny model was told to crash") &&
                          Catch::Contains("worker-0.log"));
}

// Whether somebody listens there: "127.0.0.1:PORT", also as an endpoint, "tcp://…".
bool taken(const std::string& address) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port =
        htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    ::inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected = ::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
    ::close(socket);
    return connected;
}

// Where a run listens: its shards, by /status, and its coordinator.
std::vector<std::string> ports_of(const TinyRun& run) {
    std::vector<std::string> addresses{bytes_of_file(run.run_dir() + "/coordinator"),
                                       bytes_of_file(run.run_dir() + "/http_address")};
    const json::object status = run.status();
    for (const json::value& entry : status.at("processes").as_array()) {
        const json::object& one = entry.as_object();
        if (!one.at("name").as_string().starts_with("shard:")) continue;
        addresses.emplace_back(one.at("address").as_string());
    }
    return addresses;
}

// When the launcher has ended: no orphan, and nobody listens where the run did.
void check_nothing_left(const std::map<std::string, pid_t>& pids,
                        const std::vector<std::string>& ports) {
    for (const auto& [name, pid] : pids) {
        CAPTURE(name);
        CHECK_FALSE(alive(pid));
    }
    for (const std::string& port : ports) {
        CAPTURE(port);
        CHECK_FALSE(taken(port));
    }
}

TEST_CASE("run: the launcher's own death by -9 leaves no orphan and no port bound") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    REQUIRE(pids.size() == 4);
    const std::vector<std::string> ports = ports_of(run);
    REQUIRE(ports.size() == 4);
    for (const std::string& port : ports) REQUIRE(taken(port));
    launched.signal(SIGKILL);
    CHECK(launched.wait(seconds(5)) == 128 + SIGKILL);
    CHECK(eventually(seconds(5), [&] {
        return std::none_of(pids.begin(), pids.end(),
                            [](const auto& process) { return alive(process.second); });
    }));
    check_nothing_left(pids, ports);
}

TEST_CASE("run: Ctrl-C writes a checkpoint and leaves nothing, --resume finishes the job") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] {
        const json::object all = run.status();
        return !all.empty() && all.at("batches_done").to_number<double>() > 0.05;
    }));
    const auto pids = run.pids();
    const std::vector<std::string> ports = ports_of(run);
    REQUIRE(ports.size() == 4);
    for (const std::string& port : ports) REQUIRE(taken(port));
    launched.signal(SIGINT);
    CHECK(launched.wait(seconds(15)) == value_of(ExitCode::interrupted));
    check_nothing_left(pids, ports);
    const json::object first = run.summary();
    check_books(first);
    REQUIRE(std::filesystem::exists(run.run_dir() + "/checkpoints/1/manifest.json"));

    const std::string second_dir = run.folder() / "second";
    Launched second(run.folder(), {"run", run.job_file(), "--out", second_dir, "--resume",
                                   run.run_dir(), "--set", "model.options.step_ms=0"});
    REQUIRE(second.wait(seconds(60)) == 0);
    CHECK_THAT(second.output(), Catch::Contains("resume    " + run.run_dir() + "/checkpoints/1"));
    const json::object rest = json::parse(bytes_of_file(second_dir + "/summary.json")).as_object();
    check_books(rest);
    CHECK(rest.at("batches").as_object().at("done").to_number<double>() == 1);
    // The second run computed what the first had not, and goes on counting from there.
    const std::uint64_t before = count(rest.at("resumed").as_object(), "samples");
    CHECK(before > 0);
    CHECK(count(rest, "samples") >= 2048);
    CHECK(count(rest, "samples") - before < 2048);
    CHECK(count(rest.at("resumed").as_object(), "updates_taken_back") == 0);
    CHECK(std::filesystem::exists(second_dir + "/checkpoints/2/manifest.json"));
}

// Block updates that the ledgers of a run have as applied behind their entry "checkpoint <number>".
std::uint64_t applied_after(const TinyRun& run, const std::string& number) {
    Launched ledger(run.folder(), {"ledger", run.run_dir(), "--json"});
    REQUIRE(ledger.wait(seconds(20)) == 0);
    std::istringstream lines(ledger.output());
    std::set<std::string> passed;  // nodes
    std::uint64_t applied = 0;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("{")) continue;
        const json::object entry = json::parse(line).as_object();
        const std::string node(entry.at("node").as_string());
        const json::string& kind = entry.at("kind").as_string();
        if (kind == "control" && entry.at("what").as_string() == "checkpoint " + number) {
            passed.insert(node);
        }
        if (kind != "verdict" || !passed.contains(node)) continue;
        for (const json::value& block : entry.at("blocks").as_array()) {
            if (block.as_object().at("verdict").as_string() == "applied") ++applied;
        }
    }
    return applied;
}

TEST_CASE("run: updates past the checkpoint of a killed run are lost, as many as its ledger has") {
    const bool launcher = GENERATE(false, true);
    const TinyRun run("step_ms = 5", "[checkpoint]\nevery = 256\n");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.has_checkpoint(); }));
    const auto pids = run.pids();
    ::kill(launcher ? launched.pid() : pids.at("shard:1"), SIGKILL);
    REQUIRE(launched.wait(seconds(10)).has_value());
    REQUIRE(eventually(seconds(10), [&] {
        return std::none_of(pids.begin(), pids.end(),
                            [](const auto& process) { return alive(process.second); });
    }));

    const std::string second_dir = run.folder() / "second";
    Launched second(run.folder(), {"run", run.job_file(), "--out", second_dir, "--resume",
                                   run.run_dir(), "--set", "model.options.step_ms=0"});
    REQUIRE(second.wait(seconds(60)) == 0);
    const json::object rest = json::parse(bytes_of_file(second_dir + "/summary.json")).as_object();
    check_books(rest);
    const json::object& resumed = rest.at("resumed").as_object();
    const std::string checkpoint(resumed.at("checkpoint").as_string());
    const std::uint64_t taken_back = count(resumed, "updates_taken_back");
    CHECK(taken_back == applied_after(run, checkpoint.substr(checkpoint.rfind('/') + 1)));
    CHECK(count(rest.at("updates").as_object(), "lost") >= taken_back);
    CHECK_THAT(second.output(),
               Catch::Contains("of the lost, applied after " + checkpoint + " was made: "));
    // The count goes on from the checkpoint, and nothing that it has is computed again.
    CHECK(count(resumed, "samples") > 0);
    CHECK(count(rest, "samples") >= 2048);
    CHECK(rest.at("batches").as_object().at("done").to_number<double>() == 1);
    // Workers go on as the next incarnation; the ledger says on what they compute.
    const std::string worker = bytes_of_file(second_dir + "/ledger/worker-0.2.ledger");
    CHECK_THAT(worker, Catch::Contains("instruction set") &&
                           Catch::Contains("1 intra-op thread, plain C++"));
}

TEST_CASE("run: SIGTERM ends like Ctrl-C, with its own exit code") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    REQUIRE(pids.size() == 4);
    const std::vector<std::string> ports = ports_of(run);
    REQUIRE(ports.size() == 4);
    for (const std::string& port : ports) REQUIRE(taken(port));
    launched.signal(SIGTERM);
    CHECK(launched.wait(seconds(15)) == value_of(ExitCode::terminated));
    check_nothing_left(pids, ports);
    check_books(run.summary());
    CHECK(std::filesystem::exists(run.run_dir() + "/checkpoints/1/manifest.json"));
}

// The child of a launcher whose command is `detente VERB …`.
std::optional<pid_t> child_that(const Launched& launched, const std::string& verb) {
    using namespace std::string_literals;
    for (const pid_t child : launched.children()) {
        const std::string words = bytes_of_file("/proc/" + std::to_string(child) + "/cmdline");
        if (words.find("\0"s + verb + "\0"s) != std::string::npos) return child;
    }
    return std::nullopt;
}

TEST_CASE("run: evaluates during training in a process of its own and keeps the best") {
    const TinyRun run("step_ms = 40\nevaluate_ms = 300",
                      "[evaluate]\nevery = 400\n\n[checkpoint]\nkeep = 1\n");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    // While workers train there is one more process than ranks, which /status does not know.
    std::optional<pid_t> evaluator;
    json::object meanwhile;
    REQUIRE(eventually(seconds(20), [&] {
        evaluator = child_that(launched, "evaluate");
        if (!evaluator) return false;
        meanwhile = run.status();
        return !meanwhile.empty() && meanwhile.at("stage").as_string() == "training" &&
               alive(*evaluator);
    }));
    std::set<std::string> ranks;
    for (const json::value& entry : meanwhile.at("processes").as_array()) {
        const json::object& one = entry.as_object();
        ranks.emplace(one.at("name").as_string());
        CHECK(one.at("pid").to_number<std::int64_t>() != *evaluator);
    }
    CHECK(ranks == std::set<std::string>{"shard:0", "shard:1", "worker:0", "worker:1"});
    REQUIRE(launched.wait(seconds(60)) == 0);
    // The model was scored there, and nowhere else in this run.
    const std::string scored = "the tiny model is scored in process ";
    CHECK_THAT(bytes_of_file(run.run_dir() + "/evaluator.log"),
               Catch::Contains(scored + std::to_string(*evaluator) + "\n"));
    for (const char* log : {"worker-0.log", "worker-1.log", "server-0.log", "server-1.log"}) {
        CHECK_THAT(bytes_of_file(run.run_dir() + "/" + log), !Catch::Contains(scored));
    }
    CHECK_THAT(launched.output(), Catch::Contains("checkpoint 1 evaluated:  left"));
    CHECK(std::filesystem::exists(run.run_dir() + "/best/model.safetensors"));
    const Launched again(run.folder(), {"evaluate", run.run_dir()});
    CHECK(const_cast<Launched&>(again).wait(seconds(20)) == 0);
}

TEST_CASE("run: a summary that cannot be written makes the end a failure of the disk") {
    const std::string verb = GENERATE("run", "simulate");
    CAPTURE(verb);
    const TinyRun run;
    // A folder in its place: no user, root included, can rename a file over it.
    const std::string in_the_way = run.run_dir() + "/summary.json";
    std::filesystem::create_directories(in_the_way);
    Launched launched(run.folder(), {verb, run.job_file(), "--out", run.run_dir()});
    CHECK(launched.wait(seconds(60)) == value_of(ExitCode::io));
    CHECK_THAT(launched.output(),
               Catch::Contains("detente " + verb + ": cannot write " + in_the_way + ": ") &&
                   Catch::Contains("its model in " + run.run_dir() + "/checkpoints/1"));
    CHECK(std::filesystem::exists(run.run_dir() + "/checkpoints/1/manifest.json"));
}

TEST_CASE("run: --dry-run shows the plan and starts nothing") {
    const TinyRun run;
    Launched launched(run.folder(), run.arguments({"--dry-run"}));
    REQUIRE(launched.wait(seconds(20)) == 0);
    CHECK_THAT(launched.output(), Catch::Contains("nothing was started"));
    CHECK_FALSE(std::filesystem::exists(run.run_dir()));
}

}  // namespace
}  // namespace detente::test
