// Tasks split over workers: the job's keys, what `detente plan` says, and whole simulated runs.
#include <fstream>

#include "launch/fuzz_case.h"
#include "launch/replay/replay.h"
#include "launch/split_plan.h"
#include "ps/task_memory.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

constexpr const char* kSplit = "[model]\nlibrary = \"m\"\n";

std::string split_mistake(const std::vector<std::string>& overrides) {
    std::vector<std::string> all{"worker.split_tasks=true", "conflict.method=sum"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    const auto job = parse_job(kSplit, "job.toml", all);
    return job ? "no split_mistake" : job.error().text;
}

// The quadratic's tasks, of which each leaves one tensor to the other.
const std::string kSplitJob = kQuadraticJob + R"(
[[task]]
name = "task0"
exclude = ["w1"]
[[task]]
name = "task1"
exclude = ["w2"]
[worker]
split_tasks = true
[conflict]
method = "sum"
[simulate]
thorough = true
)";

const std::vector<std::string> kProjecting{"across.method=project", "across.compensate=0.04",
                                           "model.options.samples=960"};

std::vector<std::string> with(std::vector<std::string> all, const std::vector<std::string>& more) {
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

}  // namespace

TEST_CASE("split job: keys are read and written back") {
    const Job job =
        job_of(kSplit, {"worker.split_tasks=true", "conflict.method=mean", "across.method=project",
                        "across.ema=0.5", "across.half_life=3", "across.compensate=0.1"});
    CHECK(job.split_tasks);
    CHECK(job.across.method == AcrossMethod::project);
    CHECK(job.across.ema == 0.5);
    CHECK(job.across.half_life == 3);
    CHECK(job.across.compensate == 0.1);
    CHECK(to_toml(job_of(to_toml(job))) == to_toml(job));
    CHECK_FALSE(job_of(kSplit).split_tasks);
    CHECK(job_of(kSplit).across.method == AcrossMethod::off);
}

TEST_CASE("split job: what does not go with it is refused with its key and its reason") {
    using Catch::Contains;
    CHECK(split_mistake({}) == "no split_mistake");
    CHECK(split_mistake({"across.method=project"}) == "no split_mistake");
    CHECK_THAT(
        split_mistake({"conflict.method=pcgrad"}),
        Contains("conflict.method: must be sum, mean or constant") && Contains("across.method"));
    CHECK_THAT(split_mistake({"staleness.policy=bsp"}),
               Contains("worker.split_tasks: must be false where whole steps are decided"));
    CHECK_THAT(split_mistake({"staleness.admission=step"}), Contains("worker.split_tasks"));
    CHECK_THAT(split_mistake({"sync.layers=[\"*\"]"}), Contains("sync.layers: must be empty"));
    CHECK_THAT(split_mistake({"conflict.space=representation"}),
               Contains("conflict.space: must be parameters"));
    CHECK_THAT(split_mistake({"across.method=project", "staleness.policy=dc_asgd"}),
               Contains("staleness.policy: 'dc_asgd' changes gradients"));
    CHECK_THAT(split_mistake({"across.method=project", "staleness.policy=easgd"}),
               Contains("'easgd' changes gradients"));
    CHECK_THAT(split_mistake({"across.method=project", "worker.split_tasks=false"}),
               Contains("across.method: must be off without worker.split_tasks"));
    CHECK_THAT(split_mistake({"across.ema=1"}), Contains("across.ema"));
    CHECK_THAT(split_mistake({"across.half_life=0"}), Contains("across.half_life"));
}

TEST_CASE("split job: a model with gates is refused") {
    ModelDescription model;
    model.model = "gated";
    model.tasks = {"a"};
    model.tensors = {{"w", {4}, TaskSet{1}}, {"gates.g.a", {1}, TaskSet{1}}};
    model.gates.push_back({1, TaskId{0}, {0}});
    Job job;
    CHECK(make_plan(model, job).has_value());
    job.split_tasks = true;
    const auto plan = make_plan(model, job);
    REQUIRE(plan.has_error());
    CHECK_THAT(plan.error().text, Catch::Contains("gates.enabled = false"));
}

TEST_CASE("split plan: says who computes what and how many bytes are remembered") {
    const Job job = job_of(kSplitJob, with(kProjecting, {"workers=2"}));
    const auto engines = engines_for(job);
    const auto plan = make_plan(engines->description(), job);
    REQUIRE(plan.has_value());
    const std::string text = describe_split(*plan, engines->description(), job);
    INFO(text);
    CHECK_THAT(text, Catch::Contains("worker:0  task") && Catch::Contains("worker:1  task"));
    // w0 and w3, ten floats each, are both tasks'.
    CHECK(memory_bytes(job, *plan) == 2 * 2 * 40);
    CHECK(copy_bytes(job, *plan) == 2 * 40 * 2 * PolicyVectors::kMostCopies);
    CHECK_THAT(text, Catch::Contains("80 bytes of them, up to 2 tasks each, 160 bytes in all"));
    Job off = job;
    off.across.method = AcrossMethod::off;
    CHECK(memory_bytes(off, *plan) == 0);
    CHECK_THAT(describe_split(*plan, engines->description(), off),
               !Catch::Contains("across") && Catch::Contains("worker:1"));
    off.split_tasks = false;
    CHECK(describe_split(*plan, engines->description(), off).empty());
}

TEST_CASE("split run: thoroughly watched, every batch is done once per task and books balance") {
    for (const auto& more : {std::vector<std::string>{}, kProjecting}) {
        const SimulatedRun run = simulate(kSplitJob, more);
        require_whole(run);
        CHECK(run.summary.batches_done == 1);
        const std::uint64_t samples = more.empty() ? 3200 : 960;
        CHECK(run.summary.samples == 2 * samples);
        CHECK(run.summary.across.has_value() == !more.empty());
        const bool told = table(run.summary).find("across workers: ") != std::string::npos;
        CHECK(told == !more.empty());
        if (more.empty()) continue;
        CHECK(run.summary.across->arrived > 0);
        CHECK(run.summary.across->projected > 0);
        CHECK_THAT(to_json(run.summary), Catch::Contains("\"across\":{\"arrived\":"));
    }
}

TEST_CASE("split run: samples are planned for the tasks that are trained and for no others") {
    const std::string untrained = "\n[[task]]\nname = \"task2\"\nexclude = [\"*\"]\n";
    const SimulatedRun run = simulate(kSplitJob + untrained, {"model.options.tasks=3"});
    require_whole(run);
    CHECK(run.view.tasks.size() == 3);
    CHECK(run.view.samples_planned == 2 * 3200);
    CHECK(run.summary.samples == run.view.samples_planned);
}

TEST_CASE("split run: doubles on the way with crashes and restarts leave every invariant kept") {
    const std::string faults = R"(
[checkpoint]
every = 320
[deadlines]
heartbeat_s = 0.02
[[simulate.fault]]
kind = "crash"
node = "worker:2"
at_s = 0.3
[[simulate.fault]]
kind = "restart"
node = "server:1"
at_s = 0.7
lasts_s = 0.01
)";
    for (const char* seed : {"seed=1", "seed=2", "seed=3"}) {
        INFO(seed);
        const Job job = job_of(kSplitJob + faults,
                               {seed, "across.method=project", "across.compensate=0.04",
                                "simulate.network.duplicate=0.05",
                                "simulate.network.jitter_s=0.005", "worker.on_rejection=recompute",
                                "staleness.policy=bounded_reject", "staleness.tau_max=3"});
        const SimulatedRun run = simulate(job);
        require_whole(run);
        CHECK(run.summary.batches_done == 1);
        CHECK_FALSE(run.summary.resumed_from.empty());
    }
}

TEST_CASE("split run: replaying gives the weights again to the bit") {
    for (const bool crash : {false, true}) {
        const TemporaryFolder folder;
        const Job job =
            job_of(kSplitJob + (crash ? "[[simulate.fault]]\nkind = \"crash\"\nnode = "
                                        "\"worker:2\"\nat_s = 0.2\n"
                                      : ""),
                   with(kProjecting, {"workers=4", "simulate.network.drop=0.03",
                                      "staleness.policy=bounded_reject", "staleness.tau_max=2",
                                      "worker.on_rejection=compensate"}));
        SimulationSetup setup = setup_of(job, folder / "run");
        const RunDirectory run = setup.run;
        const Plan plan = setup.plan;
        std::ofstream(run.job_file()) << to_toml(job);
        auto simulation = Simulation::create(std::move(setup));
        REQUIRE(simulation.has_value());
        const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
        INFO(outcome.error.text);
        REQUIRE_FALSE(outcome.failed);
        const auto recording = read_recording(run.path, {});
        INFO((recording ? "" : recording.error().text));
        REQUIRE(recording.has_value());
        auto replay = Replay::create(*recording, plan, engines_for(job), {});
        REQUIRE(replay.has_value());
        const auto figures = (*replay)->run();
        INFO((figures ? "" : figures.error().text));
        REQUIRE(figures.has_value());
        CHECK(figures->gradients > 100);
        CHECK(figures->carried > 0);
        CHECK((*replay)->digest() == (*simulation)->figures().digest);
    }
}

TEST_CASE("split run: fuzz cases draw it and leave the cases of other seeds as they were") {
    std::size_t split = 0;
    std::size_t projecting = 0;
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        const Job job = fuzz_case(seed);
        split += job.split_tasks ? 1 : 0;
        projecting += job.across.method == AcrossMethod::project ? 1 : 0;
        if (job.split_tasks) continue;
        CHECK(job.tasks.empty());
        CHECK(job.across.ema == AcrossConfig{}.ema);
    }
    CHECK(split > 10);
    CHECK(projecting > 5);
    CHECK(projecting < split);
}

}  // namespace detente::test
