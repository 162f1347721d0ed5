// Where a step's time goes, in whole runs on virtual time: what was set must come out.
#include <catch2/catch.hpp>
#include <cmath>

#include "launch/step_times.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

// One worker and one shard; a gradient takes 20 ms, a message 2 ms, a step's push is one message.
const std::string kSteadyJob = R"(
name = "steady"
servers = 1
workers = 1
[model]
library = "builtin:quadratic"
[model.options]
dimension = 1000
tensors = 1
tasks = 2
samples = 1600
[data]
batch = 8
[staleness]
policy = "async"
[rule]
name = "sgd"
learning_rate = 0.05
[ledger]
gradient_hashes = false
[simulate.compute]
distribution = "constant"
mean_s = 0.02
[simulate.network]
latency_s = 0.002
)";
enum Part : std::size_t { kCompute, kWait, kWire, kQueue, kApply };

// What one job setting after the other gives, with all its promises kept.
SimulatedRun run_of(const std::vector<std::string>& settings, double least_told = 0.98) {
    SimulatedRun run = simulate(kSteadyJob, settings);
    require_whole(run);
    for (const WorkerSummary& worker : run.summary.workers) {
        INFO("worker " << worker.worker << ": " << text_of(worker.step_times));
        CHECK(worker.step_times.steps == worker.steps);
        // From its first gradient to its last verdict, without a gap and without overlap; what is
        // before, its first pull, and after, is not told.
        const double told_s = worker.step_times.mean_ms() * 1e-3 * double(worker.steps);
        CHECK(told_s <= run.summary.training_s + 1e-9);
        CHECK(told_s >= least_told * run.summary.training_s);
    }
    return run;
}
double mean_of(const SimulatedRun& run, std::uint32_t worker, Part part) {
    return run.summary.workers.at(worker).step_times.mean_ms(part);
}

TEST_CASE("step time: means that are read are written again to the last bit") {
    for (std::uint64_t steps = 1; steps < 2000; ++steps) {
        boost::json::object object{{"steps", steps}};
        for (std::size_t part = 0; part < kStepTimeParts; ++part) {
            const auto any = static_cast<double>(steps * (part + 2));
            object[std::string(kStepTimeNames[part]) + "_ms"] = std::sqrt(any);
        }
        REQUIRE(json_of(step_times_from(object)) == object);
    }
}

TEST_CASE("step time: alone on a quiet network a step is its gradient and a round trip") {
    const SimulatedRun run = run_of({});
    CHECK(mean_of(run, 0, kCompute) == Approx(20));
    CHECK(mean_of(run, 0, kWire) == Approx(4));
    CHECK(mean_of(run, 0, kQueue) == 0);
    CHECK(mean_of(run, 0, kApply) == 0);
    CHECK(mean_of(run, 0, kWait) < 0.1);
    // A pull of its own leaves with the push.
    const SimulatedRun pulls = run_of({"worker.push_pull=false"});
    CHECK(mean_of(pulls, 0, kWire) == Approx(4));
    CHECK(mean_of(pulls, 0, kQueue) == 0);
}

TEST_CASE("step time: the wire is what latency and bandwidth are set to") {
    // The push carries 4,000 bytes one way and the same the other, with a header of 256 bytes, over
    // two links each time.
    const SimulatedRun run = run_of({"simulate.network.bandwidth=1000KiB"});
    CHECK(mean_of(run, 0, kWire) == Approx(4 + 4 * 4256 / 1024.0).epsilon(0.01));
    CHECK(mean_of(run, 0, kQueue) < 0.2);
    CHECK(mean_of(run, 0, kCompute) == Approx(20));
}

TEST_CASE("step time: with pull_ahead the wire hides behind computing") {
    const SimulatedRun run = run_of({"worker.pull_ahead=1"});
    CHECK(mean_of(run, 0, kCompute) == Approx(20));
    CHECK(mean_of(run, 0, kWire) < 0.1);
    CHECK(mean_of(run, 0, kWait) < 0.1);
    CHECK(run.summary.step_times.mean_ms() == Approx(20).epsilon(0.01));
}

TEST_CASE("step time: with pull_ahead only what is longer than a gradient is told") {
    const SimulatedRun run = run_of({"worker.pull_ahead=1", "simulate.network.latency_s=0.030"});
    // A round trip of 60 ms is asked for when the gradient before begins, 20 ms earlier.
    CHECK(mean_of(run, 0, kWire) == Approx(40).epsilon(0.02));
    CHECK(mean_of(run, 0, kCompute) == Approx(20));
}

TEST_CASE("step time: apply is what the shard takes") {
    const SimulatedRun run =
        run_of({"simulate.shard.message_s=0.003", "simulate.shard.bytes_per_s=4000KiB"});
    // 4,000 bytes take a millisecond; the weights come with the answer.
    CHECK(mean_of(run, 0, kApply) == Approx(4).epsilon(0.02));
    CHECK(mean_of(run, 0, kWire) == Approx(4).epsilon(0.02));
    CHECK(mean_of(run, 0, kQueue) < 0.5);  // behind its own lease now and then
}

TEST_CASE("step time: workers that share a shard wait in its queue") {
    // A step alone takes 20 ms of computing, 4 on the wire and 8 of the shard: four fill it. Of six
    // workers each is served every 48 ms, and leases are served besides.
    const SimulatedRun run = run_of({"workers=6", "simulate.shard.message_s=0.008",
                                     "simulate.compute.distribution=exponential"},
                                    0.9);
    const StepTimes& mean = run.summary.step_times;
    CHECK(mean.mean_ms(kApply) == Approx(8).epsilon(0.02));
    CHECK(mean.mean_ms(kWire) + mean.mean_ms(kQueue) > 15);
    CHECK(mean.mean_ms(kQueue) > 10);
    const SimulatedRun alone = run_of({"simulate.shard.message_s=0.008"});
    CHECK(alone.summary.step_times.mean_ms(kQueue) < 2);
    CHECK(mean.mean_ms() > alone.summary.step_times.mean_ms());
}

TEST_CASE("step time: a straggler computes as much longer as it was told") {
    const SimulatedRun run = run_of(
        {"workers=3", "simulate.compute.straggler=1", "simulate.compute.straggler_factor=4"});
    CHECK(mean_of(run, 0, kCompute) == Approx(20));
    CHECK(mean_of(run, 1, kCompute) == Approx(80));
    CHECK(mean_of(run, 2, kCompute) == Approx(20));
    CHECK(mean_of(run, 1, kWire) == Approx(4).epsilon(0.05));
}

TEST_CASE("step time: what ssp holds back waits, and the straggler does not") {
    const SimulatedRun run =
        run_of({"workers=2", "staleness.policy=ssp", "staleness.s=2",
                "simulate.compute.straggler=1", "simulate.compute.straggler_factor=4"});
    // In the long run both make a step in the straggler's time: 80 ms and what travels.
    CHECK(mean_of(run, 0, kCompute) == Approx(20));
    CHECK(mean_of(run, 0, kWait) == Approx(60).epsilon(0.1));
    CHECK(mean_of(run, 1, kCompute) == Approx(80));
    CHECK(mean_of(run, 1, kWait) < 5);
}

TEST_CASE("step time: what was lost and sent again is waiting") {
    const SimulatedRun whole = run_of({});
    const SimulatedRun run = run_of({"simulate.network.drop=0.05", "deadlines.reply_s=0.5"}, 0.9);
    CHECK(mean_of(run, 0, kWait) > 10);
    CHECK(mean_of(run, 0, kWire) <= mean_of(whole, 0, kWire) + 1e-9);
    CHECK(mean_of(run, 0, kQueue) < 0.2);
}

TEST_CASE("step time: a worker that is in step with others waits for the slowest of its node") {
    const SimulatedRun run =
        run_of({"workers=2", "launch.nodes=1", "sync.layers=[\"*\"]",
                "simulate.compute.straggler=1", "simulate.compute.straggler_factor=3"});
    CHECK(mean_of(run, 0, kCompute) == Approx(20).epsilon(0.01));
    CHECK(mean_of(run, 0, kWait) > 38);
    CHECK(mean_of(run, 1, kCompute) == Approx(60).epsilon(0.01));
    CHECK(mean_of(run, 1, kWait) < 10);
}

}  // namespace
}  // namespace detente::test
