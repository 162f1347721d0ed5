// Ranks started by somebody else: by hand with --rank and --size, and by mpirun where it is there.
#include <signal.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>

#include "launch/exit_code.h"
#include "launch/roles.h"
#include "tests/system/daemons.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

struct Alone {
    int code = -1;
    std::string output;
};
// One rank and nobody else, with these variables, to its end.
Alone alone(const std::vector<std::string>& variables, const std::vector<std::string>& joins,
            const std::string& program = DETENTE_PROGRAM) {
    const TemporaryFolder folder;
    Launched rank(folder, words(words(variables, {program, "join"}), joins), "env");
    const auto code = rank.wait(seconds(20));
    return {code.value_or(-1), rank.output()};
}

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
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        const TinyRun run;
        Launched ranks(
            run.folder(),
            words(mpi.bare, {DETENTE_PROGRAM, "join", run.job_file(), "--out", run.run_dir()}),
            mpi.program);
        CHECK(ranks.wait(seconds(30)) == 0);
        const std::string variable = mpi.open_mpi() ? "OMPI_COMM_WORLD_RANK" : "PMI_RANK";
        CHECK_THAT(ranks.output(), Catch::Contains(variable) && Catch::Contains("test accuracy"));
    }
}

TEST_CASE("join: two launches of one job in one folder at once are two runs") {
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        const TinyRun run;
        const auto arguments = words(mpi.bare, {DETENTE_PROGRAM, "join", run.job_file()});
        Launched first(run.folder(), arguments, mpi.program);
        Launched second(run.folder(), arguments, mpi.program);
        CAPTURE(mpi.program, first.output());
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
    CHECK_THAT(second->output(), Catch::Contains("another launch of this job holds") &&
                                     Catch::Contains("--out DIR or DETENTE_LAUNCH_KEY"));
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(40)) == 0);
}

TEST_CASE("join: a killed rank 0 takes the others with it") {
    const TinyRun run("step_ms = 10");
    const Ranks ranks = join_by_hand(run);
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

TEST_CASE("join: a rank whose log cannot be written ends the job and is named") {
    const TinyRun run;
    // Where the log of worker 1 is to be there is a folder.
    std::filesystem::create_directories(run.run_dir() + "/worker-1.log");
    const Ranks ranks = join_by_hand(run);
    for (const auto& rank : ranks) REQUIRE(rank->wait(seconds(20)));  // nobody hangs
    CHECK(ranks[0]->wait(seconds(0)) == value_of(ExitCode::io));
    CHECK(ranks[4]->wait(seconds(0)) == value_of(ExitCode::io));
    CHECK_THAT(ranks[0]->output(), Catch::Contains("worker:1") && Catch::Contains("worker-1.log"));
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
    Launched nobody(run.folder(), {"join", run.job_file(), "--dry-run"});
    REQUIRE(nobody.wait(seconds(20)) == 0);
    CHECK_THAT(nobody.output(), Catch::Contains("nothing was started") &&
                                    Catch::Contains("mpirun -n 5 detente join"));
}

TEST_CASE("join: a wrong number of ranks is an error with the right one") {
    const TinyRun run;
    Launched rank(run.folder(), {"join", run.job_file(), "--rank", "0", "--size", "3"});
    CHECK(rank.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(rank.output(), Catch::Contains("3 ranks") && Catch::Contains("-n 5"));
    const Alone nobodys = alone({}, {run.job_file()});
    CHECK(nobodys.code == value_of(ExitCode::usage));
    CHECK_THAT(nobodys.output, Catch::Contains("mpirun -n"));
}

TEST_CASE("join: a rank that fails says so with its rank and host and one speaks for its host") {
    const TinyRun run;
    const std::string here = " on " + this_host() + ": ";
    // Rank 0 may be well, on a host that has the file, or with the right number of ranks.
    const Alone without = alone({}, {"/no/such/job.toml", "--rank", "3", "--size", "5"});
    CHECK(without.code == value_of(ExitCode::usage));
    CHECK_THAT(without.output, Catch::StartsWith("detente join: rank 3 of 5" + here +
                                                 "/no/such/job.toml: cannot read the job file"));
    const Alone wrong = alone({}, {run.job_file(), "--rank", "3", "--size", "4"});
    CHECK(wrong.code == value_of(ExitCode::usage));
    CHECK_THAT(wrong.output,
               Catch::StartsWith("detente join: rank 3 of 4" + here + "4 ranks were started") &&
                   Catch::Contains("-n 5"));
    const std::vector<std::string> placed = {"DETENTE_RANK=3", "DETENTE_SIZE=4"};
    const Alone first = alone(words(placed, {"DETENTE_LOCAL_RANK=0"}), {run.job_file()});
    CHECK(first.code == value_of(ExitCode::usage));
    CHECK_THAT(first.output, Catch::StartsWith("detente join: rank 3 of 4" + here));
    const Alone second = alone(words(placed, {"DETENTE_LOCAL_RANK=1"}), {run.job_file()});
    CHECK(second.code == value_of(ExitCode::usage));
    CHECK(second.output.empty());
}

TEST_CASE("join: a rank whose host lacks the MPI module says so with its rank and host") {
    const TinyRun run("",
                      "[sync]\nlayers = [\"*\"]\nbackend = \"mpi\"\n\n"
                      "[staleness]\npolicy = \"async\"\n");
    // The program without what lies beside it.
    const std::string program = run.folder() / "detente";
    std::filesystem::copy_file(DETENTE_PROGRAM, program);
    const Alone rank =
        alone({"OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=5", "OMPI_COMM_WORLD_LOCAL_RANK=0"},
              {run.job_file()}, program);
    CHECK(rank.code == value_of(ExitCode::usage));
    CHECK_THAT(rank.output, Catch::StartsWith("detente join: rank 3 of 5 on " + this_host() +
                                              ": module of "
                                              "collectives ") &&
                                Catch::Contains("detente_openmpi.so: no such file"));
}

TEST_CASE("join: an IPv6 address of the coordinator is refused at once with what is expected") {
    const TinyRun run;
    for (const std::string rank : {"0", "3"}) {
        const Alone refused = alone(
            {}, {run.job_file(), "--rank", rank, "--size", "5", "--coordinator", "[::1]:7000"});
        CHECK(refused.code == value_of(ExitCode::usage));
        CHECK_THAT(refused.output, Catch::Contains("--coordinator = [::1]:7000: ") &&
                                       Catch::Contains("expected a name or an IPv4 address"));
    }
    const Alone worker = alone({}, {"--worker", "--coordinator", "[::1]:7000"});
    CHECK(worker.code == value_of(ExitCode::usage));
    CHECK_THAT(worker.output, Catch::Contains("expected a name or an IPv4 address"));
}

TEST_CASE("join: a worker takes a place among ranks started by hand and names no job file") {
    const TinyRun run("step_ms = 10");
    const Ranks ranks =
        by_hand(run, {"join", run.job_file(), "--out", run.run_dir(), "--set", "data.epochs=4"});
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("worker:1"), SIGKILL);
    REQUIRE(eventually(seconds(20), [&] {
        return ranks[0]->output().find("worker:1 lost: ") != std::string::npos;
    }));
    const TemporaryFolder first_folder;
    Launched first(first_folder, {"join", "--worker", "--out", run.run_dir()});
    REQUIRE(eventually(seconds(20), [&] { return run.pids()["worker:1"] == first.pid(); }));
    CHECK_THAT(first.output(), Catch::Contains("joins as worker:1, incarnation 2"));
    const pid_t leaving = run.pids().at("worker:0");
    const TemporaryFolder drain_folder;
    Launched drain(drain_folder, {"control", run.run_dir(), "--drain", "worker:0"});
    REQUIRE(drain.wait(seconds(20)) == 0);
    REQUIRE(eventually(seconds(20), [leaving] { return !alive(leaving); }));
    // From elsewhere, where the run directory may have another name.
    const std::string coordinator = bytes_of_file(run.run_dir() + "/coordinator");
    const TemporaryFolder second_folder;
    Launched second(second_folder, {"join", "--worker", "--coordinator",
                                    coordinator.substr(0, coordinator.find('\n'))});
    REQUIRE(eventually(seconds(20), [&] { return run.pids()["worker:0"] == second.pid(); }));
    CAPTURE(ranks[0]->output(), first.output(), second.output());
    CHECK(ranks[0]->wait(seconds(90)) == 0);
    CHECK(first.wait(seconds(20)) == 0);
    CHECK(second.wait(seconds(20)) == 0);
    const auto summary = run.summary();
    REQUIRE_FALSE(summary.empty());
    CHECK_FALSE(summary.at("failed").as_bool());
    CHECK(summary.at("processes_lost").to_number<int>() == 1);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    const Alone no_job = alone({}, {"--rank", "0", "--size", "5"});
    CHECK(no_job.code == value_of(ExitCode::usage));
    CHECK_THAT(no_job.output, Catch::Contains("join: JOB is required"));
}

TEST_CASE("join: ranks and worker ids are the same after a restart whoever starts them") {
    const TinyRun run("step_ms = 40", "[checkpoint]\nevery = 256\n");
    const std::map<std::string, std::string> placed = {{"server-0", "rank 1 of 5 is server 0"},
                                                       {"server-1", "rank 2 of 5 is server 1"},
                                                       {"worker-0", "rank 3 of 5 is worker 0"},
                                                       {"worker-1", "rank 4 of 5 is worker 1"}};
    const auto check_places = [&placed](const std::string& run_dir) {
        for (const auto& [process, place] : placed) {
            CHECK_THAT(bytes_of_file(run_dir + "/" + process + ".log"), Catch::Contains(place));
        }
    };
    {
        const Ranks ranks = by_hand(run, {"join", run.job_file(), "--out", run.run_dir()});
        REQUIRE(run.reaches_training());
        REQUIRE(eventually(seconds(20), [&run] { return run.has_checkpoint(); }));
        ranks[0]->signal(SIGINT);
        REQUIRE(ranks[0]->wait(seconds(20)) == value_of(ExitCode::interrupted));
        for (const auto& rank : ranks) REQUIRE(rank->wait(seconds(20)));
    }
    check_places(run.run_dir());
    const auto went_on = [&](const std::string& run_dir) {
        check_places(run_dir);
        CHECK(std::filesystem::exists(run_dir + "/ledger/worker-0.2.ledger"));
        CHECK(std::filesystem::exists(run_dir + "/ledger/worker-1.2.ledger"));
        const std::string text = bytes_of_file(run_dir + "/summary.json");
        REQUIRE_FALSE(text.empty());
        const auto summary = boost::json::parse(text).as_object();
        CHECK_FALSE(summary.at("failed").as_bool());
        CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    };
    const auto joins = [&run](const std::string& run_dir) {
        return std::vector<std::string>{"join",
                                        run.job_file(),
                                        "--out",
                                        run_dir,
                                        "--resume",
                                        run.run_dir(),
                                        "--set",
                                        "model.options."
                                        "step_ms=0"};
    };
    {
        const std::string run_dir = run.folder() / "again";
        const Ranks ranks = by_hand(run, joins(run_dir));
        CAPTURE(ranks[0]->output());
        for (const auto& rank : ranks) CHECK(rank->wait(seconds(40)) == 0);
        went_on(run_dir);
    }
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        const std::string run_dir = run.folder() / mpi.program;
        Launched ranks(run.folder(), words(words(mpi.bare, {DETENTE_PROGRAM}), joins(run_dir)),
                       mpi.program);
        CAPTURE(mpi.program, ranks.output());
        CHECK(ranks.wait(seconds(40)) == 0);
        went_on(run_dir);
    }
}

}  // namespace
}  // namespace detente::test
