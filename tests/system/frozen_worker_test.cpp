// A worker that stops answering without dying (SIGSTOP), and one that comes back after that.
#include <signal.h>

#include <catch2/catch.hpp>
#include <memory>

#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

TEST_CASE("frozen: a frozen worker is named within its deadline and the job goes on without it") {
    const TinyRun run("step_ms = 10");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > 3; }));
    const auto pids = run.pids();
    ::kill(pids.at("worker:1"), SIGSTOP);
    // deadlines.peer_s is 2 s, looked at every 0.1 s.
    CHECK(eventually(seconds(4), [&] {
        return launched.output().find("worker:1 lost: no sign of life for 2.") != std::string::npos;
    }));
    REQUIRE(launched.wait(seconds(60)) == 0);
    const json::object summary = run.summary();
    check_books(summary);
    CHECK(count(summary, "processes_lost") == 1);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    CHECK(count(summary.at("batches").as_object(), "leased_again") > 0);
    for (const auto& [name, pid] : pids) CHECK_FALSE(alive(pid));
}

TEST_CASE("frozen: with on_loss.worker = stop the job ends, naming the frozen worker") {
    const TinyRun run("step_ms = 10", "[on_loss]\nworker = \"stop\"\n");
    Launched launched(run.folder(), run.arguments());
    REQUIRE(run.reaches_training());
    const auto pids = run.pids();
    ::kill(pids.at("worker:0"), SIGSTOP);
    CHECK(launched.wait(seconds(15)) == value_of(ExitCode::deadline));
    CHECK_THAT(launched.output(), Catch::Contains("first:      worker:0") &&
                                      Catch::Contains("no sign of life for 2.") &&
                                      Catch::Contains("worker-0.log"));
    CHECK(std::filesystem::exists(run.run_dir() + "/checkpoints/1/manifest.json"));
    check_books(run.summary());
    for (const auto& [name, pid] : pids) CHECK_FALSE(alive(pid));
}

// Ranks of `join` are not the coordinator's children: nobody can kill one that is frozen.
TEST_CASE("frozen: a worker that comes back after it was given up is refused and ends by itself") {
    const TinyRun run("step_ms = 40");
    const Ranks ranks = join_by_hand(run);
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "steps") > 3; }));
    const Launched& coordinator = *ranks[0];
    Launched& frozen = *ranks[4];
    frozen.signal(SIGSTOP);
    REQUIRE(eventually(seconds(4), [&] {
        return coordinator.output().find("worker:1 lost: no sign of life for 2.") !=
               std::string::npos;
    }));
    REQUIRE(run.training());
    frozen.signal(SIGCONT);
    const auto ended = frozen.wait(seconds(10));
    REQUIRE(ended);
    CHECK(*ended == value_of(ExitCode::process_lost));
    CHECK_THAT(bytes_of_file(run.run_dir() + "/worker-1.log"),
               Catch::Contains("gave this process up as lost: no sign of life for 2."));
    CHECK(run.training());  // nobody else minds
    for (int rank = 0; rank < 4; ++rank) {
        const auto code = ranks[static_cast<std::size_t>(rank)]->wait(seconds(60));
        INFO("rank " << rank << ": " << ranks[static_cast<std::size_t>(rank)]->output());
        CHECK(code == 0);
    }
    const json::object summary = run.summary();
    check_books(summary);
    CHECK(count(summary, "processes_lost") == 1);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    // Each batch counts once, whoever computed it: nothing of the zombie's was applied as well.
    CHECK(count(summary.at("updates").as_object(), "lost") > 0);
}

}  // namespace
}  // namespace detente::test
