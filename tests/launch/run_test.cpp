#include <catch2/catch.hpp>
#include <filesystem>

#include "launch/join.h"
#include "launch/latest_checkpoint.h"
#include "launch/processes.h"
#include "launch/run_directory.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

namespace fs = std::filesystem;

TEST_CASE("run directory: is made with its folders, and latest points to the newest") {
    const TemporaryFolder folder;
    const auto first = make_run_directory(folder / "runs/one", "x");
    REQUIRE(first.has_value());
    CHECK(fs::is_directory(first->ledger_dir()));
    CHECK(fs::is_directory(first->checkpoint_dir()));
    REQUIRE(make_run_directory(folder / "runs/two/", "x").has_value());
    CHECK(fs::read_symlink(folder / "runs/latest") == "two");
    CHECK(first->log_file("worker:2") == folder / "runs/one/worker-2.log");
}

TEST_CASE("run directory: one that holds a run, or cannot be made, is refused with a remedy") {
    const TemporaryFolder folder;
    const auto run = make_run_directory(folder / "one", "x");
    REQUIRE(write_text(run->job_file(), "name = \"x\"\n").has_value());
    const auto again = make_run_directory(folder / "one", "x");
    REQUIRE(again.has_error());
    CHECK_THAT(again.error().text, Catch::Contains("holds a run already"));
    const auto within_a_file = make_run_directory(folder / "one/job.toml/run", "x");
    REQUIRE(within_a_file.has_error());
    CHECK(within_a_file.error().code == ErrorCode::io);
    CHECK_THAT(within_a_file.error().text, Catch::Contains("--out"));
}

TEST_CASE("resume: the newest complete checkpoint of a run, and a sentence where there is none") {
    const TemporaryFolder folder;
    fs::create_directories(folder / "run/checkpoints/7");  // torn: no manifest
    const auto none = find_checkpoint(folder / "run");
    REQUIRE(none.has_error());
    CHECK(none.error().code == ErrorCode::bad_checkpoint);
    CHECK_THAT(none.error().text, Catch::Contains("no complete checkpoint"));
    CHECK(find_checkpoint(folder / "nowhere").error().code == ErrorCode::bad_checkpoint);
}

TEST_CASE("join: rank 0 coordinates, servers come next, workers last") {
    Job job;
    job.servers = 2;
    job.workers = 3;
    Placement placement;
    placement.size = 6;
    const Role roles[] = {Role::coordinator, Role::shard,  Role::shard,
                          Role::worker,      Role::worker, Role::worker};
    const std::uint32_t ranks[] = {0, 0, 1, 0, 1, 2};
    for (std::uint32_t rank = 0; rank < 6; ++rank) {
        placement.rank = rank;
        const auto role = role_of(placement, job);
        REQUIRE(role.has_value());
        CHECK(role->role == roles[rank]);
        CHECK(role->rank == ranks[rank]);
    }
    placement.size = 5;
    placement.source = "OMPI_COMM_WORLD_SIZE";
    const auto wrong = role_of(placement, job);
    REQUIRE(wrong.has_error());
    CHECK_THAT(wrong.error().text,
               Catch::Contains("-n 6") && Catch::Contains("OMPI_COMM_WORLD_SIZE"));
}

TEST_CASE("join: the rendezvous file differs between launches and stays in one folder") {
    Job job;
    job.name = "x";
    Placement placement;
    placement.size = 4;
    placement.launch_key = "pmix-a/1";
    CHECK(rendezvous_file("", job, placement) == "runs/.join-x-4-pmix-a_1");
    CHECK(rendezvous_file("/shared/run", job, placement) == "/shared/.join-x-4-pmix-a_1-run");
    placement.launch_key = "";  // MPICH: --out alone tells two launches of one job apart
    CHECK(rendezvous_file("", job, placement) == "runs/.join-x-4");
    CHECK(rendezvous_file("one", job, placement) == ".join-x-4-one");
    CHECK(rendezvous_file("/shared/one/", job, placement) == "/shared/.join-x-4-one");
    CHECK(rendezvous_file("/shared/two", job, placement) == "/shared/.join-x-4-two");
}

TEST_CASE("processes: which lines of a log are for the screen") {
    CHECK(matters("2026-01-01 10:00:00.000 [warning] slow"));
    CHECK(matters("invariant broken at a.cpp:1: x"));
    CHECK_FALSE(matters("2026-01-01 10:00:00.000 [info] fine"));
    CHECK(ProcessEnd{3, 0}.text() == "exit code 3");
    CHECK(ProcessEnd{0, 9}.text() == "killed by signal 9 (SIGKILL)");
}

}  // namespace
}  // namespace detente
