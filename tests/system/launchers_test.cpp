// Ranks that another launcher starts: Slurm, what torchrun sets, and what each says when a rank is
// killed.
#include <signal.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "launch/exit_code.h"
#include "launch/roles.h"
#include "tests/system/daemons.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

struct Mpi {
    std::string program;
    std::vector<std::string> go_on;  // the flag under which a rank's death does not end the job
};
const std::vector<Mpi> kMpis = {
    {"mpirun.openmpi", {"--oversubscribe", "--continuous"}},
    {"mpirun.mpich", {"-disable-auto-cleanup"}},
};

bool skipped(const Mpi& mpi) {
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    const std::string lacks =
        missing({{mpi.program, mpi.program == "mpirun.mpich" ? "mpich" : "openmpi-bin"}});
    if (!lacks.empty()) WARN("skipped: " << lacks);
    return !lacks.empty();
}

std::vector<std::string> words(std::vector<std::string> first,
                               const std::vector<std::string>& more) {
    first.insert(first.end(), more.begin(), more.end());
    return first;
}

std::vector<std::string> join_words(const TinyRun& run) {
    return {DETENTE_PROGRAM, "join", run.job_file(), "--out", run.run_dir()};
}

TEST_CASE(
    "launchers: under mpirun a killed server is told once with its host, whoever started it") {
    for (const Mpi& mpi : kMpis) {
        if (skipped(mpi)) continue;
        const TinyRun run("step_ms = 10");
        Launched job(run.folder(), words(words(mpi.go_on, {"-n", "5"}), join_words(run)),
                     mpi.program);
        REQUIRE(run.reaches_training());
        ::kill(run.pids().at("shard:1"), SIGKILL);
        const auto code = job.wait(seconds(30));
        CAPTURE(mpi.program, job.output());
        REQUIRE(code);
        CHECK(*code != 0);
        CHECK_THAT(job.output(),
                   Catch::Contains("FAILED: shard:1") &&
                       Catch::Contains("first:      shard:1 (server:1) on " + this_host()));
    }
}

TEST_CASE("launchers: under mpirun a job goes on after a worker's death with the launcher's flag") {
    for (const Mpi& mpi : kMpis) {
        if (skipped(mpi)) continue;
        const TinyRun run("step_ms = 10");
        Launched job(run.folder(), words(words(mpi.go_on, {"-n", "5"}), join_words(run)),
                     mpi.program);
        REQUIRE(run.reaches_training());
        ::kill(run.pids().at("worker:1"), SIGKILL);
        REQUIRE(job.wait(seconds(60)));  // its code is the launcher's own word on the killed rank
        CAPTURE(mpi.program, job.output());
        const auto summary = run.summary();
        REQUIRE_FALSE(summary.empty());
        CHECK_FALSE(summary.at("failed").as_bool());
        CHECK(summary.at("processes_lost").to_number<int>() == 1);
    }
}

TEST_CASE("launchers: the variables of torchrun with its agent's port taken") {
    const TinyRun run;
    const std::uint16_t port = free_port();
    // The agent's store listens on MASTER_PORT: rank 0 must not want it.
    Launched agent(run.folder(),
                   {"-c", "import socket,time\ns = socket.create_server(('127.0.0.1', " +
                              std::to_string(port) + "))\nopen('agent', 'w')\ns.accept()"},
                   "python3");
    REQUIRE(eventually(seconds(20),
                       [&run] { return std::filesystem::exists(run.folder() / "agent"); }));
    std::vector<std::unique_ptr<Launched>> ranks;
    for (int rank = 4; rank >= 0; --rank) {
        const std::string number = std::to_string(rank);
        ranks.push_back(std::make_unique<Launched>(
            run.folder(),
            words({"RANK=" + number, "LOCAL_RANK=" + number, "WORLD_SIZE=5", "LOCAL_WORLD_SIZE=5",
                   "GROUP_RANK=0", "GROUP_WORLD_SIZE=1", "ROLE_RANK=" + number, "ROLE_WORLD_SIZE=5",
                   "ROLE_NAME=default", "MASTER_ADDR=127.0.0.1",
                   "MASTER_PORT=" + std::to_string(port), "TORCHELASTIC_RUN_ID=none",
                   "TORCHELASTIC_RESTART_COUNT=0", "TORCHELASTIC_MAX_RESTARTS=0",
                   "TORCHELASTIC_USE_AGENT_STORE=True"},
                  join_words(run)),
            "env"));
    }
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(40)) == 0);
    CAPTURE(ranks.back()->output());
    CHECK_THAT(ranks.back()->output(), Catch::Contains("torchrun's RANK = 0 and WORLD_SIZE = 5") &&
                                           Catch::Contains("test accuracy"));
}

TEST_CASE("launchers: srun, with a rank's death and without, and an sbatch script") {
    if (const std::string lacks = SlurmNode::missing_programs(); !lacks.empty()) {
        WARN("skipped: " << lacks);
        return;
    }
    const SlurmNode slurm;
    INFO(slurm.log());
    REQUIRE(slurm.answers());
    {
        const TinyRun run;
        Launched job(run.folder(), words({"-n", "5", "--overcommit"}, join_words(run)), "srun");
        CHECK(job.wait(seconds(60)) == 0);
        CAPTURE(job.output());
        CHECK_THAT(job.output(), Catch::Contains("Slurm's SLURM_PROCID = 0 and "
                                                 "SLURM_STEP_NUM_TASKS = 5") &&
                                     Catch::Contains("test accuracy"));
    }
    {
        const TinyRun run("step_ms = 10");
        Launched job(run.folder(),
                     words({"-n", "5", "--overcommit", "--kill-on-bad-exit=0", "--no-kill"},
                           join_words(run)),
                     "srun");
        REQUIRE(run.reaches_training());
        ::kill(run.pids().at("worker:0"), SIGKILL);
        REQUIRE(job.wait(seconds(60)));
        CAPTURE(job.output());
        const auto summary = run.summary();
        REQUIRE_FALSE(summary.empty());
        CHECK_FALSE(summary.at("failed").as_bool());
        CHECK(summary.at("processes_lost").to_number<int>() == 1);
    }
    {
        const TinyRun run;
        Launched job(run.folder(),
                     {"--wait", "--ntasks=5", "--overcommit", "--output=said",
                      "--export=ALL,DETENTE=" DETENTE_PROGRAM ",JOB=" + run.job_file(),
                      DETENTE_CLUSTERS "/slurm.sbatch", "--out", run.run_dir()},
                     "sbatch");
        CHECK(job.wait(seconds(60)) == 0);
        CAPTURE(job.output(), bytes_of_file(run.folder() / "said"));
        REQUIRE_FALSE(run.summary().empty());
        CHECK_FALSE(run.summary().at("failed").as_bool());
    }
}

}  // namespace
}  // namespace detente::test
