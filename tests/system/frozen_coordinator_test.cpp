// A coordinator that stands still without dying: alone (SIGSTOP), or with its job (Ctrl-Z).
#include <signal.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <memory>

#include "launch/exit_code.h"
#include "launch/roles.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

std::string silence_of(pid_t coordinator) {
    return "the coordinator on " + this_host() + " (process " + std::to_string(coordinator) +
           ") gave no sign of life for ";
}

bool stopped(pid_t pid) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    const std::string text((std::istreambuf_iterator<char>(stat)),
                           std::istreambuf_iterator<char>());
    const std::size_t name_end = text.rfind(')');
    return name_end != std::string::npos && text.compare(name_end, 3, ") T") == 0;
}

TEST_CASE("frozen: ranks whose coordinator is frozen end by themselves and name it") {
    const TinyRun run("step_ms = 200");
    const Ranks ranks = join_by_hand(run);
    REQUIRE(run.reaches_training());
    ranks[0]->signal(SIGSTOP);
    // The limit is twice deadlines.peer_s = 2 s, looked at every 0.1 s.
    for (std::size_t rank = 1; rank < 5; ++rank) {
        const auto code = ranks[rank]->wait(seconds(12));
        INFO("rank " << rank << ": " << ranks[rank]->output());
        REQUIRE(code);
        CHECK(*code == value_of(ExitCode::deadline));
    }
    for (const char* log : {"server-0.log", "server-1.log", "worker-0.log", "worker-1.log"}) {
        CHECK_THAT(bytes_of_file(run.run_dir() + "/" + log),
                   Catch::Contains(silence_of(ranks[0]->pid())) &&
                       Catch::Contains("2 times deadlines.peer_s = 2.0 s"));
    }
}

TEST_CASE("frozen: a launcher that is frozen alone finds its processes ended and says why") {
    const TinyRun run("step_ms = 200");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    REQUIRE(pids.size() == 4);
    launched.signal(SIGSTOP);
    CHECK(eventually(seconds(12), [&] {
        return std::none_of(pids.begin(), pids.end(),
                            [](const auto& process) { return alive(process.second); });
    }));
    launched.signal(SIGCONT);
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::process_lost));
    CHECK_THAT(launched.output(), Catch::Contains(silence_of(launched.pid())));
    CHECK_THAT(bytes_of_file(run.run_dir() + "/server-0.log"),
               Catch::Contains(silence_of(launched.pid())));
}

TEST_CASE("frozen: Ctrl-Z pauses the whole job and fg goes on with it") {
    const TinyRun run("step_ms = 40");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    REQUIRE(pids.size() == 4);
    launched.signal(SIGTSTP);
    REQUIRE(eventually(seconds(5), [&] {
        return stopped(launched.pid()) &&
               std::all_of(pids.begin(), pids.end(),
                           [](const auto& process) { return stopped(process.second); });
    }));
    // Longer than anybody's silence may last.
    REQUIRE_FALSE(launched.wait(seconds(6)));
    launched.signal(SIGCONT);
    CHECK(launched.wait(seconds(60)) == 0);
    CHECK(run.summary().at("processes_lost").to_number<int>() == 0);
}

}  // namespace
}  // namespace detente::test
