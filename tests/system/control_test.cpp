// `detente control` on real runs, and runs under step scope that end and go on.
#include <signal.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <sstream>

#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

struct Answer {
    int code = -1;
    std::string text;
};
Answer control(const TinyRun& run, const std::vector<std::string>& set) {
    std::vector<std::string> arguments = {"control", run.run_dir()};
    for (const std::string& assignment : set) {
        arguments.emplace_back("--set");
        arguments.push_back(assignment);
    }
    Launched verb(run.folder(), arguments);
    return {verb.wait(seconds(20)).value_or(-1), verb.output()};
}

Answer drain(const TinyRun& run, const std::string& worker) {
    Launched verb(run.folder(), {"control", run.run_dir(), "--drain", worker});
    return {verb.wait(seconds(20)).value_or(-1), verb.output()};
}

// Lines of the ledger that tell of a change of policy.
std::vector<std::string> changes(const TinyRun& run) {
    Launched ledger(run.folder(), {"ledger", run.run_dir()});
    REQUIRE(ledger.wait(seconds(20)) == 0);
    std::istringstream text(ledger.output());
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) {
        if (line.find("staleness policy '") != std::string::npos) lines.push_back(line);
    }
    return lines;
}

TEST_CASE("control: a running job's policy changes on every shard, and is in every ledger") {
    for (const bool steps : {true, false}) {
        INFO((steps ? "step scope" : "block scope"));
        const TinyRun run("step_ms = 40");
        Launched launched(
            run.folder(),
            run.arguments({"--set", "workers=3", "--set", "servers=2", "--set",
                           steps ? "staleness.policy=ssp" : "staleness.policy=async"}));
        REQUIRE(run.reaches_training());
        const Answer first = control(run, steps ? std::vector<std::string>{"staleness.policy="
                                                                           "fedbuff",
                                                                           "staleness.k=2"}
                                                : std::vector<std::string>{"staleness.policy="
                                                                           "hinge"});
        INFO(first.text);
        CHECK(first.code == 0);
        CHECK_THAT(first.text, Catch::Contains("decision 1:"));
        // From there on, its parameters alone.
        const Answer second = control(run, {steps ? "staleness.k=3" : "staleness.b=2"});
        INFO(second.text);
        CHECK(second.code == 0);
        REQUIRE(launched.wait(seconds(60)) == 0);
        const json::object summary = run.summary();
        CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
        const auto lines = changes(run);
        REQUIRE(lines.size() == 4);  // two shards, two changes
        for (const std::string& line : lines) {
            CHECK_THAT(line, Catch::Contains("by ") && Catch::Contains("decision 1:"));
        }
    }
}

TEST_CASE("control: a running job goes over to whole steps and back, and ends as any other") {
    const std::vector<std::pair<std::string, std::string>> ways = {
        {"staleness.policy=bsp", "staleness.policy=async"},
        {"staleness.admission=step", "staleness.admission=block"}};
    for (const auto& [to_steps, to_blocks] : ways) {
        INFO(to_steps);
        const TinyRun run("step_ms = 40");
        Launched launched(run.folder(),
                          run.arguments({"--set", "workers=3", "--set", "servers=2", "--set",
                                         "staleness.policy=bounded_reject"}));
        REQUIRE(run.reaches_training());
        const Answer there = control(run, {to_steps});
        INFO(there.text);
        CHECK(there.code == 0);
        CHECK_THAT(there.text, Catch::Contains("decision 1:") && Catch::Contains("settled"));
        // Refused by name for as long as a worker still settles what it began under block scope.
        Answer back = control(run, {to_blocks});
        const auto refused = [&back] {
            return back.code != 0 && back.text.find("still being made") != std::string::npos;
        };
        for (int i = 0; i < 100 && refused(); ++i) back = control(run, {to_blocks});
        INFO(back.text);
        CHECK(back.code == 0);
        REQUIRE(launched.wait(seconds(60)) == 0);
        CHECK(run.summary().at("batches").as_object().at("done").to_number<double>() == 1);
        const auto lines = changes(run);
        REQUIRE(lines.size() == 4);  // two shards, two changes
        for (const std::string& line : lines) CHECK_THAT(line, Catch::Contains("decision 1:"));
    }
}

TEST_CASE("control: what cannot be is refused with the reason, and the run goes on as it was") {
    const TinyRun run("step_ms = 60");
    Launched launched(run.folder(), run.arguments({"--set", "staleness.policy=bounded_reject"}));
    REQUIRE(run.reaches_training());
    const Answer typing = control(run, {"staleness.policy=bounded_rejekt"});
    CHECK(typing.code == value_of(ExitCode::usage));
    CHECK_THAT(typing.text, Catch::Contains("did you mean 'bounded_reject'"));
    const Answer key = control(run, {"workers=9"});
    CHECK(key.code == value_of(ExitCode::usage));
    CHECK_THAT(key.text, Catch::Contains("--resume"));
    const Answer half = control(run, {"staleness.policy=easgd"});
    CHECK(half.code != 0);
    CHECK_THAT(half.text, Catch::Contains("runs in the workers") && Catch::Contains("--resume"));
    const Answer nothing = control(run, {});
    CHECK(nothing.code == value_of(ExitCode::usage));
    // Who cannot read the token may change nothing.
    const std::string token = bytes_of_file(run.run_dir() + "/control_token");
    CHECK((std::filesystem::status(run.run_dir() + "/control_token").permissions() &
           std::filesystem::perms::mask) ==
          (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
    write_file(run.run_dir() + "/control_token", std::string(token.size() - 1, '0') + "\n");
    const Answer stranger = control(run, {"staleness.tau_max=1"});
    CHECK(stranger.code != 0);
    CHECK_THAT(stranger.text, Catch::Contains("control_token"));
    write_file(run.run_dir() + "/control_token", token);
    REQUIRE(launched.wait(seconds(60)) == 0);
    CHECK(changes(run).empty());
    const Answer late = control(run, {"staleness.tau_max=1"});
    CHECK(late.code == value_of(ExitCode::process_lost));
    CHECK_THAT(late.text, Catch::Contains("still running"));
}

TEST_CASE("control: a drained worker leaves in order and the job goes on with every batch done") {
    for (const std::string policy : {"async", "bsp"}) {
        INFO(policy);
        const TinyRun run("step_ms = 10");
        Launched launched(run.folder(), run.arguments({"--set", "workers=3", "--set",
                                                       "staleness.policy=" + policy}));
        REQUIRE(run.reaches_training());
        const Answer nobody = drain(run, "worker:7");
        CHECK(nobody.code == value_of(ExitCode::usage));
        CHECK_THAT(nobody.text, Catch::Contains("--drain worker:7: expected a worker that works: "
                                                "worker:0, worker:1, worker:2"));
        const pid_t leaving = run.pids().at("worker:2");
        const Answer first = drain(run, "worker:2");
        INFO(first.text);
        CHECK(first.code == 0);
        CHECK_THAT(first.text, Catch::Contains("worker:2 on ") && Catch::Contains("leaves"));
        REQUIRE(eventually(seconds(20), [leaving] { return !alive(leaving); }));
        CHECK(run.training());
        REQUIRE(launched.wait(seconds(60)) == 0);
        CHECK_THAT(launched.output(), Catch::Contains("worker:2 is asked to leave, by "));
        const json::object summary = run.summary();
        CHECK(summary.at("processes_lost").to_number<int>() == 0);
        CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
        CHECK(summary.at("updates").as_object().at("lost").to_number<int>() == 0);
    }
}

// Every batch is done, the books balance, and a replay has the same bits.
void check_done_and_replayed(const TinyRun& run) {
    const json::object summary = run.summary();
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    CHECK_FALSE(summary.at("failed").as_bool());
    Launched again(run.folder(), {"replay", run.run_dir()});
    const auto code = again.wait(seconds(60));
    INFO(again.output());
    CHECK(code == 0);
    CHECK_THAT(again.output(), Catch::Contains("bit for bit those of checkpoint"));
}

TEST_CASE("join: a worker takes the place of a killed one and of a drained one in a running job") {
    for (const std::string policy : {"async", "bsp"}) {
        INFO(policy);
        const TinyRun run("step_ms = 10\n");
        Launched launched(
            run.folder(),
            run.arguments({"--set", "workers=3", "--set", "staleness.policy=" + policy, "--set",
                           "data.epochs=2", "--set", "conflict.method=famo"}));
        REQUIRE(run.reaches_training());
        const std::vector<std::string> joins = {"join", run.job_file(), "--worker", "--out",
                                                run.run_dir()};
        const TemporaryFolder early;
        Launched too_many(early, joins);
        CHECK(too_many.wait(seconds(20)) == value_of(ExitCode::usage));
        CHECK_THAT(too_many.output(), Catch::Contains("no place is free"));
        const auto pids = run.pids();
        REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > 3; }));
        const double counted = run.value("worker:1", "steps");
        ::kill(pids.at("worker:1"), SIGKILL);
        REQUIRE(eventually(seconds(20), [&] {
            return launched.output().find("worker:1 lost: ") != std::string::npos;
        }));
        const TemporaryFolder first_folder;
        Launched first(first_folder, joins);
        REQUIRE(eventually(seconds(20), [&] { return run.pids()["worker:1"] == first.pid(); }));
        CHECK_THAT(first.output(), Catch::Contains("joins as worker:1, incarnation 2"));
        // What the killed one had counted stands; this one's own comes on top.
        const double before = run.value("worker:1", "steps");
        CHECK(before >= counted);
        REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > before; }));
        CHECK(drain(run, "worker:2").code == 0);
        REQUIRE(eventually(seconds(20), [&] { return !alive(pids.at("worker:2")); }));
        const TemporaryFolder second_folder;
        Launched second(second_folder, joins);
        REQUIRE(eventually(seconds(20), [&] { return run.pids()["worker:2"] == second.pid(); }));
        REQUIRE(launched.wait(seconds(90)) == 0);
        CAPTURE(launched.output(), first.output(), second.output());
        CHECK(first.wait(seconds(20)) == 0);
        CHECK(second.wait(seconds(20)) == 0);
        CHECK(run.summary().at("processes_lost").to_number<int>() == 1);
        check_done_and_replayed(run);
    }
}

TEST_CASE("join: a worker takes part beyond those the job began with, where it has places for it") {
    const std::vector<std::vector<std::string>> jobs = {
        {"staleness.policy=async"}, {"staleness.policy=bsp"}, {"worker.split_tasks=true"}};
    for (const std::vector<std::string>& job : jobs) {
        INFO(job.front());
        const TinyRun run("step_ms = 10\n");
        Launched launched(
            run.folder(),
            run.arguments({"--set", "workers=1", "--set", "places=2", "--set", "data.epochs=2",
                           "--set", job.front(), "--set", "conflict.method=mean"}));
        REQUIRE(run.reaches_training());
        const TemporaryFolder folder;
        const std::vector<std::string> joins = {"join", run.job_file(), "--worker", "--out",
                                                run.run_dir()};
        Launched joined(folder, joins);
        REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > 3; }));
        CHECK_THAT(joined.output(), Catch::Contains("joins as worker:1, incarnation 1"));
        const TemporaryFolder late_folder;
        Launched too_many(late_folder, joins);
        CHECK(too_many.wait(seconds(20)) == value_of(ExitCode::usage));
        CHECK_THAT(too_many.output(), Catch::Contains("no place is free"));
        REQUIRE(launched.wait(seconds(90)) == 0);
        CAPTURE(launched.output(), joined.output());
        CHECK(joined.wait(seconds(20)) == 0);
        check_done_and_replayed(run);
    }
}

TEST_CASE(
    "resume: a run under step scope ends by Ctrl-C or -9 of a server, and --resume finishes") {
    for (const std::string policy : {"bsp", "fedbuff", "ssp"}) {
        for (const bool killed : {false, true}) {
            INFO(policy << (killed ? ", killed" : ", Ctrl-C"));
            const TinyRun run("step_ms = 5", "[checkpoint]\nevery = 256\n");
            Launched launched(run.folder(), run.arguments({"--set", "servers=2", "--set",
                                                           "staleness.policy=" + policy}));
            REQUIRE(run.reaches_training());
            REQUIRE(eventually(seconds(20), [&] { return run.has_checkpoint(); }));
            if (killed) {
                ::kill(run.pids().at("shard:1"), SIGKILL);
            } else {
                launched.signal(SIGINT);
            }
            REQUIRE(launched.wait(seconds(15)).has_value());
            const std::string second_dir = run.folder() / "second";
            Launched second(run.folder(),
                            {"run", run.job_file(), "--out", second_dir, "--resume", run.run_dir(),
                             "--set", "model.options.step_ms=0", "--set", "servers=2", "--set",
                             "staleness.policy=" + policy});
            const auto code = second.wait(seconds(60));
            INFO(second.output());
            REQUIRE(code == 0);
            const json::object rest =
                json::parse(bytes_of_file(second_dir + "/summary.json")).as_object();
            const json::object& books = rest.at("updates").as_object();
            const auto count = [&](const char* name) {
                return books.at(name).to_number<std::uint64_t>();
            };
            CHECK(count("in_flight") == 0);
            CHECK(rest.at("batches").as_object().at("done").to_number<double>() == 1);
            const auto taken_back =
                rest.at("resumed").as_object().at("updates_taken_back").to_number<std::uint64_t>();
            CHECK(count("lost") >= taken_back);
            if (!killed) CHECK(taken_back == 0);
        }
    }
}

}  // namespace
}  // namespace detente::test
