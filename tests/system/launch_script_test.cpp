// scripts/launch: a job over ssh, on an sshd of the tests' own; three hosts' names, one machine.
#include <signal.h>

#include <catch2/catch.hpp>

#include "launch/exit_code.h"
#include "tests/system/daemons.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

constexpr const char* kLaunch = DETENTE_SCRIPTS "/launch";
constexpr const char* kThreeHosts = "# coordinator and servers, workers\none slots=3\ntwo\nthree\n";

// Skips, with one line, where ssh is not to be had.
#define REQUIRE_SSH(hosts)                                                        \
    if (const std::string lacks = SshHosts::missing_programs(); !lacks.empty()) { \
        WARN("skipped: " << lacks);                                               \
        return;                                                                   \
    }                                                                             \
    const SshHosts hosts;                                                         \
    REQUIRE(hosts.answers())

std::unique_ptr<Launched> launched(const SshHosts& hosts, const TinyRun& run,
                                   const std::string& host_file = kThreeHosts,
                                   const std::string& program = DETENTE_PROGRAM) {
    write_file(run.folder() / "hosts", host_file);
    return std::make_unique<Launched>(
        run.folder(),
        std::vector<std::string>{"--hosts", run.folder() / "hosts", "--program", program, "--ssh",
                                 hosts.client(), run.job_file(), "--out", run.run_dir()},
        kLaunch);
}

// All that ran is gone, with nobody left who would wait for it.
bool all_gone(const std::map<std::string, pid_t>& pids) {
    return eventually(seconds(25), [&pids] {
        return std::none_of(pids.begin(), pids.end(),
                            [](const auto& process) { return alive(process.second); });
    });
}

std::size_t times(const std::string& text, const std::string& what) {
    std::size_t count = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
    return count;
}

TEST_CASE("launch script: a hosts file's ranks train over ssh and the job's exit code comes back") {
    REQUIRE_SSH(hosts);
    const TinyRun run;
    const auto job = launched(hosts, run);
    CAPTURE(job->output());
    REQUIRE(job->wait(seconds(60)) == 0);
    CHECK_FALSE(run.summary().at("failed").as_bool());
    CHECK_THAT(job->output(), Catch::Contains("Détente's own DETENTE_RANK = 0 and DETENTE_SIZE = "
                                              "5") &&
                                  Catch::Contains("test accuracy"));
    // Placed by the file: the third host has the last rank only.
    const std::string last = bytes_of_file(run.run_dir() + "/worker-1.log");
    CHECK_THAT(last, Catch::Contains("rank 4 of 5 is worker 1"));
}

TEST_CASE("launch script: a killed worker is named with its host and the job goes on") {
    REQUIRE_SSH(hosts);
    const TinyRun run("step_ms = 10");
    const auto job = launched(hosts, run);
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("worker:1"), SIGKILL);
    CAPTURE(job->output());
    REQUIRE(job->wait(seconds(60)) == 0);
    CHECK(run.summary().at("processes_lost").to_number<int>() == 1);
    CHECK_THAT(job->output(), Catch::Contains("worker:1 lost"));
}

TEST_CASE("launch script: a killed server ends the job with one failure and its host's name") {
    REQUIRE_SSH(hosts);
    const TinyRun run("step_ms = 10");
    const auto job = launched(hosts, run);
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    ::kill(pids.at("shard:1"), SIGKILL);
    REQUIRE(job->wait(seconds(30)) == value_of(ExitCode::process_lost));
    const std::string output = job->output();
    CAPTURE(output);
    CHECK(times(output, "FAILED") == 1);
    CHECK_THAT(output, Catch::Contains("first:      shard:1 (server:1) on "));
    CHECK(all_gone(pids));
}

TEST_CASE("launch script: an interrupt drains and saves and nobody is left") {
    REQUIRE_SSH(hosts);
    const TinyRun run("step_ms = 10");
    const auto job = launched(hosts, run);
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    job->signal(SIGINT);
    CAPTURE(job->output());
    REQUIRE(job->wait(seconds(30)) == value_of(ExitCode::interrupted));
    CHECK(!run.summary().at("last_checkpoint").as_string().empty());
    CHECK(all_gone(pids));
}

TEST_CASE("launch script: a killed launcher leaves a checkpoint and nobody") {
    REQUIRE_SSH(hosts);
    const TinyRun run("step_ms = 10");
    const auto job = launched(hosts, run);
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    job->signal(SIGKILL);
    REQUIRE(job->wait(seconds(5)));
    CHECK(all_gone(pids));
    REQUIRE(eventually(seconds(10), [&run] { return !run.summary().empty(); }));
    CHECK(!run.summary().at("last_checkpoint").as_string().empty());
}

TEST_CASE(
    "launch script: a host that does not answer or lacks the program ends the job and is named") {
    REQUIRE_SSH(hosts);
    const TinyRun run;
    const auto unreachable = launched(hosts, run, "one slots=4\nnowhere\n");
    CAPTURE(unreachable->output());
    REQUIRE(unreachable->wait(seconds(30)) == value_of(ExitCode::process_lost));
    CHECK_THAT(unreachable->output(),
               Catch::Contains("FAILED: rank 4 (worker:1) on nowhere is gone before the job began: "
                               "ssh could not start it") &&
                   Catch::Contains("Connection refused"));
    const TinyRun other;
    const auto first = launched(hosts, other, "nowhere\n");
    REQUIRE(first->wait(seconds(30)) == value_of(ExitCode::process_lost));
    CHECK_THAT(first->output(), Catch::Contains("FAILED: rank 0 (coordinator) on nowhere"));
}

// What a hosts file is refused with, before anything is started.
std::string refusal(const std::string& host_file) {
    const TinyRun run;
    write_file(run.folder() / "hosts", host_file);
    Launched job(run.folder(),
                 {"--hosts", run.folder() / "hosts", "--program", DETENTE_PROGRAM, "--ssh", "false",
                  run.job_file()},
                 kLaunch);
    CHECK(job.wait(seconds(20)) == value_of(ExitCode::usage));
    return job.output();
}

TEST_CASE("launch script: a hosts file is refused by its line") {
    if (const std::string lacks = missing({{"python3", "python3"}}); !lacks.empty()) {
        WARN("skipped: " << lacks);
        return;
    }
    CHECK_THAT(refusal("one\ntwo slots=0\n"),
               Catch::Contains("hosts:2: expected HOST [slots=N] [address=A]") &&
                   Catch::Contains("found 'slots=0'"));
    CHECK_THAT(refusal("one 4\n"), Catch::Contains("hosts:1: expected") && Catch::Contains("'4'"));
    CHECK_THAT(refusal("-oProxyCommand=x\n"), Catch::Contains("expected a host's name"));
    CHECK_THAT(refusal("# nobody\n\n"), Catch::Contains("no host in it"));
    CHECK_THAT(refusal("one slots=2\ntwo slots=2\n"),
               Catch::Contains("the job needs 5 ranks, but the hosts' slots are 4 in all"));
}

}  // namespace
}  // namespace detente::test
