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

constexpr const char* kOutlive = DETENTE_SCRIPTS "/outlive";

std::vector<std::string> join_words(const TinyRun& run) {
    return {DETENTE_PROGRAM, "join", run.job_file(), "--out", run.run_dir()};
}

// There is one block of failures, with the first one's host.
void check_block(const std::string& output) {
    const std::size_t at = output.find("FAILED: shard:1");
    REQUIRE(at != std::string::npos);
    CHECK(output.find("FAILED", at + 1) == std::string::npos);
    CHECK_THAT(output, Catch::Contains("first:      shard:1 (server:1) on " + this_host()));
}

// Kills a server of a job that these words start.
void tells_of_a_killed_server(const std::string& program,
                              const std::vector<std::string>& launcher_words,
                              bool code_is_the_jobs) {
    const TinyRun run("step_ms = 10");
    Launched job(run.folder(), words(launcher_words, join_words(run)), program);
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("shard:1"), SIGKILL);
    const auto code = job.wait(seconds(30));
    CAPTURE(program, job.output());
    REQUIRE(code);
    CHECK(*code != 0);
    if (code_is_the_jobs) CHECK(*code == value_of(ExitCode::process_lost));
    check_block(job.output());
}

TEST_CASE("launchers: under mpirun a killed server is told once and the exit code is the job's") {
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        tells_of_a_killed_server(mpi.program, words(mpi.bare, {kOutlive}), true);
    }
}

TEST_CASE("launchers: bare mpirun ends a job whose worker was killed and nobody is left") {
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        const TinyRun run("step_ms = 10");
        Launched job(run.folder(), words(mpi.bare, join_words(run)), mpi.program);
        REQUIRE(run.reaches_training());
        const auto pids = run.pids();
        const pid_t killed = pids.at("worker:1");
        ::kill(killed, SIGKILL);
        const auto code = job.wait(seconds(30));
        CAPTURE(mpi.program, job.output());
        REQUIRE(code);
        CHECK(*code != 0);
        // It ends rank 0 with the others, a second later or at once: a block is not promised
        // (README, "A rank dies"). Its own last words say what happened.
        const bool open_mpi = mpi.program == "mpirun.openmpi";
        CHECK_THAT(job.output(), Catch::Contains(open_mpi ? "exited on signal 9 (Killed)"
                                                          : "EXIT STRING: Killed (signal 9)"));
        if (open_mpi) {
            CHECK_THAT(job.output(), Catch::Contains("worker:1 lost: ") &&
                                         Catch::Contains("(pid " + std::to_string(killed) + " on " +
                                                         this_host() + ")"));
        }
        CHECK(eventually(seconds(20), [&pids] {
            return std::none_of(pids.begin(), pids.end(),
                                [](const auto& process) { return alive(process.second); });
        }));
    }
}

// Kills a worker of a job that these words start; it must go on and end well.
void goes_on_without_a_worker(const TinyRun& run, const std::string& program,
                              const std::vector<std::string>& arguments, bool code_is_the_jobs) {
    Launched job(run.folder(), arguments, program);
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("worker:1"), SIGKILL);
    const auto code = job.wait(seconds(60));
    CAPTURE(program, job.output());
    REQUIRE(code);
    if (code_is_the_jobs) CHECK(*code == 0);
    const auto summary = run.summary();
    REQUIRE_FALSE(summary.empty());
    CHECK_FALSE(summary.at("failed").as_bool());
    CHECK(summary.at("processes_lost").to_number<int>() == 1);
}

TEST_CASE("launchers: under mpirun a job goes on after a worker's death by a script or a flag") {
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        const TinyRun run("step_ms = 10");
        goes_on_without_a_worker(run, mpi.program,
                                 words(words(mpi.bare, {kOutlive}), join_words(run)), true);
        if (mpi.program != "mpirun.openmpi") continue;
        const TinyRun flagged("step_ms = 10");
        goes_on_without_a_worker(flagged, mpi.program,
                                 words(words({"--continuous"}, mpi.bare), join_words(flagged)),
                                 false);
    }
}

TEST_CASE("launchers: another model library on one host ends the job and both hosts are named") {
    const std::string lacks = missing({{"unshare", "util-linux"}, {"mount", "mount"}});
    if (!lacks.empty() || ::geteuid() != 0) {
        WARN("skipped: " << (lacks.empty() ? "file systems of their own need root" : lacks));
        return;
    }
    const TinyRun run;
    const std::string here = run.folder() / "libtiny.so";
    const std::string there = run.folder() / "libother.so";
    write_file(here, bytes_of_file(TINY_MODEL));
    write_file(there, bytes_of_file(TINY_MODEL) + "built elsewhere");
    std::vector<std::unique_ptr<Launched>> ranks;
    for (int rank = 0; rank < 5; ++rank) {
        const auto joins = words(join_words(run), {"--set", "model.library=" + here, "--set",
                                                   "transport.advertise_address=localhost",
                                                   "--rank", std::to_string(rank), "--size", "5"});
        // The last rank's "host" has another file under the same name.
        const std::vector<std::string> elsewhere = {
            "--mount",
            "--uts",
            "sh",
            "-c",
            "hostname elsewhere && mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"",
            "sh",
            there,
            here};
        ranks.push_back(rank < 4 ? std::make_unique<Launched>(run.folder(), joins, "env")
                                 : std::make_unique<Launched>(run.folder(), words(elsewhere, joins),
                                                              "unshare"));
    }
    CHECK(ranks[0]->wait(seconds(40)) == value_of(ExitCode::model));
    CHECK_THAT(ranks[0]->output(), Catch::Contains("FAILED: worker:1: " + here +
                                                   " on elsewhere: its file's checksum is ") &&
                                       Catch::Contains(", on " + this_host() + " it is "));
}

// Ranks by the variables that torchrun sets; rank 0 last.
std::vector<std::unique_ptr<Launched>> by_torchrun(const TinyRun& run, std::uint16_t port,
                                                   const std::vector<std::string>& before = {}) {
    std::vector<std::unique_ptr<Launched>> ranks;
    for (int rank = 4; rank >= 0; --rank) {
        const std::string number = std::to_string(rank);
        const std::vector<std::string> variables = {"RANK=" + number,
                                                    "LOCAL_RANK=" + number,
                                                    "WORLD_SIZE=5",
                                                    "LOCAL_WORLD_SIZE=5",
                                                    "GROUP_RANK=0",
                                                    "GROUP_WORLD_SIZE=1",
                                                    "ROLE_RANK=" + number,
                                                    "ROLE_WORLD_SIZE=5",
                                                    "ROLE_NAME=default",
                                                    "MASTER_ADDR=127.0.0.1",
                                                    "TORCHELASTIC_RUN_ID=none",
                                                    "MASTER_PORT=" + std::to_string(port),
                                                    "TORCHELASTIC_RESTART_COUNT=0",
                                                    "TORCHELASTIC_MAX_RESTARTS=0",
                                                    "TORCHELASTIC_USE_AGENT_STORE=True"};
        ranks.push_back(std::make_unique<Launched>(
            run.folder(), words(words(variables, before), join_words(run)), "env"));
    }
    return ranks;
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
    const auto ranks = by_torchrun(run, port);
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(40)) == 0);
    CAPTURE(ranks.back()->output());
    CHECK_THAT(ranks.back()->output(), Catch::Contains("torchrun's RANK = 0 and WORLD_SIZE = 5") &&
                                           Catch::Contains("test accuracy"));
}

TEST_CASE("launchers: under torchrun a killed server is told once though all are told to end") {
    const TinyRun run("step_ms = 10");
    const auto ranks = by_torchrun(run, free_port());
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("shard:1"), SIGKILL);
    Launched& first = *ranks.back();
    REQUIRE(eventually(seconds(20), [&first] {
        return first.output().find("shard:1 lost: ") != std::string::npos;
    }));
    // As torchrun's agent does when a rank has ended badly; SIGKILL comes 30 s later.
    for (const auto& rank : ranks) rank->signal(SIGTERM);
    const auto code = first.wait(seconds(20));
    CAPTURE(first.output());
    REQUIRE(code);
    // The signal may come when rank 0 has told all and is about to end.
    CAPTURE(*code);
    CHECK((*code == value_of(ExitCode::process_lost) || *code == 128 + SIGTERM));
    check_block(first.output());
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(20)));
}

TEST_CASE("launchers: under torchrun a job goes on after a worker's death by the script") {
    const TinyRun run("step_ms = 10");
    const auto ranks = by_torchrun(run, free_port(), {kOutlive});
    REQUIRE(run.reaches_training());
    ::kill(run.pids().at("worker:1"), SIGKILL);
    CAPTURE(ranks.back()->output());
    // No rank ends badly: the agent has no reason to end the others.
    for (const auto& rank : ranks) CHECK(rank->wait(seconds(60)) == 0);
    const auto summary = run.summary();
    REQUIRE_FALSE(summary.empty());
    CHECK_FALSE(summary.at("failed").as_bool());
    CHECK(summary.at("processes_lost").to_number<int>() == 1);
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
    const std::vector<std::string> going_on = {"-n", "5", "--overcommit", "--kill-on-bad-exit=0",
                                               "--no-kill"};
    {
        const TinyRun run("step_ms = 10");
        goes_on_without_a_worker(run, "srun", words(going_on, join_words(run)), false);
    }
    {
        const TinyRun run("step_ms = 10");
        goes_on_without_a_worker(run, "srun", words(words(going_on, {kOutlive}), join_words(run)),
                                 true);
    }
    tells_of_a_killed_server("srun", words(going_on, {kOutlive}), true);
    tells_of_a_killed_server("srun", going_on, false);
    // Slurm ends all ranks, but gives them KillWait.
    tells_of_a_killed_server("srun", {"-n", "5", "--overcommit", "--kill-on-bad-exit=1"}, false);
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
