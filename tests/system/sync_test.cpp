// Layers in step, with real processes: averages in shared memory and over both MPIs, and what
// becomes of a node one of whose workers dies or stands still.
#include <signal.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "launch/exit_code.h"
#include "tests/system/daemons.h"

namespace detente::test {
namespace {

using std::chrono::seconds;
namespace json = boost::json;

// Three workers that keep all in step; the tiny model takes `step_ms` per gradient.
constexpr const char* kInStep = R"(
[sync]
layers = ["*"]
deadline_s = 2
[staleness]
policy = "async"
)";

// What processes started while this lives are told: the stand-in for NCCL and CUDA, sanitizers.
class Told {
  public:
    Told(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
    ~Told() { ::unsetenv(name_); }
    Told(const Told&) = delete;
    Told& operator=(const Told&) = delete;

  private:
    const char* name_;
};

bool nccl_is_built() {
    if (!std::string(NCCL_STANDIN).empty()) return true;
    WARN("skipped: the module over NCCL was not built, CUDA with NCCL was not there");
    return false;
}

std::vector<std::string> over_nccl(const TinyRun& run, const char* workers) {
    return run.arguments({"--set", workers, "--set", "sync.backend=nccl", "--set",
                          "sync.nccl_library=" NCCL_STANDIN, "--set",
                          "sync.cuda_library=" NCCL_STANDIN, "--set", "sync.deadline_s=20"});
}

json::object ended_well(const TinyRun& run, Launched& launched) {
    const auto code = launched.wait(seconds(60));
    INFO(launched.output());
    REQUIRE(code == 0);
    json::object summary = run.summary();
    check_books(summary);
    CHECK(summary.at("batches").as_object().at("done").to_number<double>() == 1);
    return summary;
}

// From the ledgers of shards and workers, those of killed ones included.
void check_replayed(const TinyRun& run) {
    Launched again(run.folder(), {"replay", run.run_dir()});
    const auto code = again.wait(seconds(60));
    INFO(again.output());
    CHECK(code == 0);
    CHECK_THAT(again.output(), Catch::Contains("rounds of averages of nodes") &&
                                   Catch::Contains("bit for bit those of checkpoint"));
}

TEST_CASE("in step: three processes of one host are one worker to the servers") {
    const TinyRun run("step_ms = 1", kInStep);
    Launched launched(run.folder(), run.arguments({"--set", "workers=3"}));
    const json::object summary = ended_well(run, launched);
    CHECK(count(summary.at("staleness").as_object(), "max") == 0);
    const json::object& sync = summary.at("sync").as_object();
    CHECK(count(sync, "member_rounds") > 0);
    // Each round is pushed once, and every member's own books hold what it did not push.
    const json::object& books = summary.at("updates").as_object();
    // At the end members leave one by one, and who is left pushes for fewer.
    const auto applied = static_cast<double>(count(books, "applied"));
    CHECK(static_cast<double>(count(books, "cancelled")) == Approx(2 * applied).epsilon(0.1));
    check_replayed(run);
}

TEST_CASE("in step: a killed member is left out and the job goes on") {
    const TinyRun run("step_ms = 10", kInStep);
    Launched launched(run.folder(), run.arguments({"--set", "workers=3"}));
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "sync.rounds") > 3; }));
    ::kill(run.pids().at("worker:1"), SIGKILL);
    const json::object summary = ended_well(run, launched);
    CHECK(count(summary, "processes_lost") == 1);
    CHECK_THAT(launched.output(), Catch::Contains(": worker:0 and worker:2"));
    check_replayed(run);
}

TEST_CASE("in step: a member that stands still is missed by name at the deadline of an average") {
    // Silence is borne for longer than an average waits.
    const TinyRun run("step_ms = 10", kInStep);
    Launched launched(run.folder(),
                      run.arguments({"--set", "workers=3", "--set", "deadlines.peer_s=20"}));
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:2", "sync.rounds") > 3; }));
    const pid_t frozen = run.pids().at("worker:2");
    ::kill(frozen, SIGSTOP);
    CHECK(eventually(seconds(10), [&] {
        return launched.output().find(": worker:0 and worker:1\n") != std::string::npos;
    }));
    ::kill(frozen, SIGCONT);
    const json::object summary = ended_well(run, launched);
    CHECK(count(summary, "processes_lost") == 0);
    CHECK_THAT(launched.output(), Catch::Contains("worker:2 had not done its part"));
}

TEST_CASE("in step: one that joins a running job is taken into its node") {
    const TinyRun run("step_ms = 20", kInStep);
    Launched launched(run.folder(),
                      run.arguments({"--set", "workers=3", "--set", "data.epochs=3"}));
    REQUIRE(run.reaches_training());
    REQUIRE(eventually(seconds(20), [&] { return run.value("worker:1", "sync.rounds") > 3; }));
    const double counted = run.value("worker:1", "sync.rounds");
    ::kill(run.pids().at("worker:1"), SIGKILL);
    REQUIRE(eventually(seconds(20), [&] {
        const std::string text = launched.output();
        return text.find("worker:1 lost: ") != std::string::npos &&
               text.find(": worker:0 and worker:2\n") != std::string::npos;
    }));
    const TemporaryFolder folder;
    Launched joined(folder, {"join", run.job_file(), "--worker", "--out", run.run_dir()});
    REQUIRE(eventually(seconds(20), [&] { return run.pids()["worker:1"] == joined.pid(); }));
    REQUIRE(eventually(seconds(20), [&] {  // as they were before it was lost
        const std::string text = launched.output();
        const std::size_t last = text.rfind(": worker:0, worker:1 and worker:2\n");
        return last != std::string::npos && last > text.find("worker:1 lost: ");
    }));
    // What the killed one had counted stands; its own rounds come on top.
    const double before = run.value("worker:1", "sync.rounds");
    CHECK(before >= counted);
    CHECK(eventually(seconds(20), [&] { return run.value("worker:1", "sync.rounds") > before; }));
    const json::object summary = ended_well(run, launched);
    INFO(joined.output());
    CHECK(joined.wait(seconds(20)) == 0);
    CHECK(count(summary, "processes_lost") == 1);
    check_replayed(run);
}

TEST_CASE("in step: over Open MPI and over MPICH where they started the job") {
    const Told leaks("LSAN_OPTIONS", MPI_LSAN_OPTIONS);
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
#ifdef __SANITIZE_THREAD__
        if (!mpi.open_mpi()) {
            WARN("left out: MPICH's library crashes at its beginning under ThreadSanitizer");
            continue;
        }
#endif
        const TinyRun run("step_ms = 1", kInStep);
        Launched launched(
            run.folder(),
            words(mpi.bare, {DETENTE_PROGRAM, "join", run.job_file(), "--out", run.run_dir(),
                             "--set", "sync.backend=mpi", "--set", "sync.deadline_s=30"}),
            mpi.program);
        INFO(mpi.program);
        const json::object summary = ended_well(run, launched);
        CHECK(count(summary.at("staleness").as_object(), "max") == 0);
        CHECK(count(summary.at("sync").as_object(), "groups_lost") <= 2);  // at the end
        Launched again(run.folder(), {"replay", run.run_dir()});
        CHECK(again.wait(seconds(60)) != 0);
        CHECK_THAT(again.output(), Catch::Contains("were summed by mpi"));
    }
}

TEST_CASE("in step: a backend that cannot be is said before or at the start") {
    const TinyRun run("step_ms = 1", kInStep);
    Launched mpi(run.folder(), run.arguments({"--set", "sync.backend=mpi"}));
    CHECK(mpi.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(mpi.output(), Catch::Contains("mpirun -n N"));
    const TinyRun other("step_ms = 1", kInStep);
    Launched nccl(other.folder(), other.arguments({"--set", "sync.backend=nccl"}));
    const auto code = nccl.wait(seconds(30));
    if (code == 0) {
        WARN("this machine has a GPU and NCCL");
        return;
    }
    INFO(nccl.output());
    CHECK_THAT(nccl.output(), Catch::Contains("NCCL") || Catch::Contains("module of collectives"));
}

TEST_CASE("in step: over NCCL the workers of a host average on a GPU each") {
    if (!nccl_is_built()) return;
    const TinyRun run("step_ms = 1", kInStep);
    Launched launched(run.folder(), over_nccl(run, "workers=3"));
    const json::object summary = ended_well(run, launched);
    CHECK(count(summary.at("staleness").as_object(), "max") == 0);
    CHECK(count(summary.at("sync").as_object(), "member_rounds") > 0);
    CHECK(count(summary, "processes_lost") == 0);
}

TEST_CASE("in step: more workers than GPUs over NCCL end the run with what to do") {
    if (!nccl_is_built()) return;
    const Told told("DETENTE_STANDIN_DEVICES", "1");
    const TinyRun run("step_ms = 1", kInStep);
    Launched launched(run.folder(), over_nccl(run, "workers=2"));
    CHECK(launched.wait(seconds(60)) == value_of(ExitCode::usage));
    INFO(launched.output());
    CHECK_THAT(launched.output(), Catch::Contains("NCCL takes one worker per GPU"));
}

TEST_CASE("in step: a run in which no group could ever be formed fails and says why") {
    if (!nccl_is_built()) return;
    const Told told("DETENTE_STANDIN_FAULT", "no_join:0:0");
    const TinyRun run("step_ms = 1", kInStep);
    Launched launched(run.folder(), over_nccl(run, "workers=2"));
    const auto code = launched.wait(seconds(60));
    INFO(launched.output());
    CHECK(code == value_of(ExitCode::io));
    CHECK_THAT(launched.output(), Catch::Contains("were never in step") &&
                                      Catch::Contains("joining NCCL's group failed") &&
                                      Catch::Contains("in step: never"));
    CHECK(count(run.summary().at("sync").as_object(), "member_rounds") == 0);
}

}  // namespace
}  // namespace detente::test
