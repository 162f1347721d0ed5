// Ranks started by somebody else: by hand with --rank and --size, and by mpirun where it is there.
#include <signal.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>

#include "launch/exit_code.h"
#include "launch/roles.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

TEST_CASE("join: every rank gets its role and they find each other through a file") {
    const TinyRun run;
    std::vector<std::unique_ptr<Launched>> ranks;
    for (int rank = 4; rank >= 0; --rank) {  // the coordinator last
        ranks.push_back(std::make_unique<Launched>(
            run.folder(), std::vector<std::string>{"join", run.job_file(), "--out", run.run_dir(),
                                                   "--rank", std::to_string(rank), "--size", "5"}));
    }
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(30)) == 0);
    CHECK_FALSE(run.summary().at("failed").as_bool());
    for (const char* name : {"server-0.log", "server-1.log", "worker-0.log", "worker-1.log"}) {
        CHECK(std::filesystem::exists(run.run_dir() + "/" + name));
    }
}

TEST_CASE("join: under Open MPI and under MPICH") {
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    for (const std::string mpirun : {"mpirun.openmpi", "mpirun.mpich"}) {
        if (!std::filesystem::exists("/usr/bin/" + mpirun)) {
            WARN("skipped: " << mpirun << " is not installed");
            continue;
        }
        const TinyRun run;
        std::vector<std::string> arguments = {"-n",           "5",     DETENTE_PROGRAM, "join",
                                              run.job_file(), "--out", run.run_dir()};
        if (mpirun == "mpirun.openmpi") arguments.insert(arguments.begin(), "--oversubscribe");
        Launched ranks(run.folder(), arguments, mpirun);
        CHECK(ranks.wait(seconds(30)) == 0);
        const std::string variable =
            mpirun == "mpirun.openmpi" ? "OMPI_COMM_WORLD_RANK" : "PMI_RANK";
        CHECK_THAT(ranks.output(), Catch::Contains(variable) && Catch::Contains("test accuracy"));
    }
}

TEST_CASE("join: two launches of one job in one folder at once are two runs") {
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    for (const std::string mpirun : {"mpirun.openmpi", "mpirun.mpich"}) {
        if (!std::filesystem::exists("/usr/bin/" + mpirun)) {
            WARN("skipped: " << mpirun << " is not installed");
            continue;
        }
        const TinyRun run;
        std::vector<std::string> arguments = {"-n", "5", DETENTE_PROGRAM, "join", run.job_file()};
        if (mpirun == "mpirun.openmpi") arguments.insert(arguments.begin(), "--oversubscribe");
        Launched first(run.folder(), arguments, mpirun);
        Launched second(run.folder(), arguments, mpirun);
        CAPTURE(mpirun, first.output());
        CHECK(first.wait(seconds(40)) == 0);
        CHECK(second.wait(seconds(40)) == 0);
        std::size_t summaries = 0;
        for (const auto& entry : std::filesystem::directory_iterator(run.folder() / "runs")) {
            if (entry.is_symlink() || !entry.is_directory()) continue;
            CHECK(std::filesystem::exists(entry.path() / "summary.json"));
            ++summaries;
        }
        CHECK(summaries == 2);
    }
}

TEST_CASE("join: without a key of its own a second launch beside a live one is refused") {
    const TinyRun run("step_ms = 10");
    const auto start = [&run](int rank) {
        return std::make_unique<Launched>(
            run.folder(), std::vector<std::string>{"join", run.job_file(), "--rank",
                                                   std::to_string(rank), "--size", "5"});
    };
    std::vector<std::unique_ptr<Launched>> ranks;
    for (int rank = 0; rank < 5; ++rank) ranks.push_back(start(rank));
    REQUIRE(eventually(seconds(20),
                       [&] { return ranks[0]->output().find("\ntrain") != std::string::npos; }));
    const auto second = start(0);
    CHECK(second->wait(seconds(20)) == value_of(ExitCode::io));
    CHECK_THAT(ranks[0]->output(), Catch::Contains("another launch of this job holds") &&
                                       Catch::Contains("--out DIR or DETENTE_LAUNCH_KEY"));
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(40)) == 0);
}

TEST_CASE("join: a killed rank 0 takes the others with it") {
    const TinyRun run("step_ms = 10");
    std::vector<std::unique_ptr<Launched>> ranks;
    for (int rank = 0; rank < 5; ++rank) {
        ranks.push_back(std::make_unique<Launched>(
            run.folder(), std::vector<std::string>{"join", run.job_file(), "--out", run.run_dir(),
                                                   "--rank", std::to_string(rank), "--size", "5"}));
    }
    REQUIRE(run.reaches_training());
    ranks[0]->signal(SIGKILL);
    for (std::size_t rank = 1; rank < 5; ++rank) {
        const auto code = ranks[rank]->wait(seconds(10));
        REQUIRE(code);
        CHECK(*code == value_of(ExitCode::process_lost));
        CHECK_THAT(ranks[rank]->output(),
                   Catch::Contains("the coordinator on " + this_host() + " (process " +
                                   std::to_string(ranks[0]->pid()) + ") is gone"));
    }
}

TEST_CASE("join: --dry-run shows the plan from rank 0, or without a launcher, and starts nothing") {
    const TinyRun run;
    for (const std::string rank : {"0", "3"}) {
        const TinyRun own;
        Launched dry(own.folder(), {"join", own.job_file(), "--out", own.run_dir(), "--rank", rank,
                                    "--size", "5", "--dry-run"});
        REQUIRE(dry.wait(seconds(20)) == 0);
        const bool told = dry.output().find("nothing was started") != std::string::npos;
        CHECK(told == (rank == "0"));
        CHECK_FALSE(std::filesystem::exists(own.run_dir()));
    }
    Launched alone(run.folder(), {"join", run.job_file(), "--dry-run"});
    REQUIRE(alone.wait(seconds(20)) == 0);
    CHECK_THAT(alone.output(), Catch::Contains("nothing was started") &&
                                   Catch::Contains("mpirun -n 5 detente join"));
}

TEST_CASE("join: a wrong number of ranks is an error with the right one") {
    const TinyRun run;
    Launched rank(run.folder(), {"join", run.job_file(), "--rank", "0", "--size", "3"});
    CHECK(rank.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(rank.output(), Catch::Contains("3 ranks") && Catch::Contains("-n 5"));
    Launched alone(run.folder(), {"join", run.job_file()});
    CHECK(alone.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(alone.output(), Catch::Contains("mpirun -n"));
}

}  // namespace
}  // namespace detente::test
