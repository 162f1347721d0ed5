// Layers in step ([sync]) in whole runs on virtual time: what they are equal to, what they leave
// alone, and what becomes of them under faults.
#include <catch2/catch.hpp>

#include "launch/replay/replay.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

// Four workers of two virtual nodes.
const std::string kNodesJob = R"(
name = "nodes"
servers = 2
workers = 4
[model]
library = "builtin:quadratic"
[model.options]
dimension = 40
tensors = 4
tasks = 2
noise = 0.1
samples = 3200
[data]
batch = 16
[launch]
nodes = 2
[conflict]
method = "pcgrad"
[staleness]
policy = "async"
[rule]
name = "sgd"
learning_rate = 0.05
)";

// Longer than the deadlines below, shorter than a peer's.
const std::string kPause = R"(
[[simulate.fault]]
kind = "pause"
node = "worker:2"
at_s = 0.2
lasts_s = 2
)";

double value_of(const SimulatedRun& run, std::uint32_t worker, const std::string& name) {
    const ProcessView* process = run.view.find(node_of(WorkerId{worker}));
    REQUIRE(process != nullptr);
    return process->value(name).value_or(0);
}

void require_ended(const SimulatedRun& run) {
    INFO(run.outcome.error.text);
    REQUIRE_FALSE(run.outcome.failed);
    CHECK(run.summary.books.balance("the run").has_value());
    CHECK(run.summary.books.in_flight == 0);
}

TEST_CASE("in step: one node that keeps every layer in step gives the weights of bsp to rounding") {
    for (const char* method : {"mean", "pcgrad", "upgrad"}) {
        INFO(method);
        const std::string conflict = std::string("conflict.method=") + method;
        // One task, so that resolving averages and averaging what was resolved are the same.
        const std::vector<std::string> common = {conflict, "model.options.tasks=1",
                                                 "simulate.thorough=true",
                                                 // Each worker has its quarter of the batches.
                                                 "data.lease_batches=50"};
        std::vector<std::string> in_step = common;
        in_step.insert(in_step.end(), {"launch.nodes=1", "sync.layers=[\"*\"]"});
        std::vector<std::string> bsp = common;
        bsp.emplace_back("staleness.policy=bsp");
        const SimulatedRun one = simulate(kNodesJob, in_step);
        const SimulatedRun other = simulate(kNodesJob, bsp);
        require_ended(one);
        require_ended(other);
        // Fifty steps; bsp sums in double, an average in float.
        CHECK(one.loss() == Approx(other.loss()).epsilon(1e-6));
        CHECK(one.summary.staleness.max == 0);
        // 200 batches by four workers: 50 rounds, in each four blocks are pushed once.
        CHECK(one.summary.books.applied == 50 * 4);
        CHECK(value_of(one, 3, "sync.rounds") == 50);
    }
}

TEST_CASE("in step: conflicts are resolved between the node's averages and not before") {
    // Where a method projects, averages of what was projected are something else.
    const SimulatedRun in_step =
        simulate(kNodesJob, {"launch.nodes=1", "sync.layers=[\"*\"]", "model.options.noise=5"});
    const SimulatedRun bsp = simulate(kNodesJob, {"staleness.policy=bsp", "model.options.noise=5"});
    require_ended(in_step);
    CHECK(in_step.loss() != Approx(bsp.loss()).epsilon(1e-4));
    // All members resolve the same Gramian where everything is in step, and each its own otherwise.
    CHECK(value_of(bsp, 0, "cosine.sum") != value_of(bsp, 3, "cosine.sum"));
    CHECK(value_of(in_step, 0, "cosine.sum") == value_of(in_step, 3, "cosine.sum"));
}

TEST_CASE("in step: to the server a node is one worker for those blocks and the rest is apart") {
    const SimulatedRun run =
        simulate(kNodesJob, {"sync.layers=[\"w0\", \"w1\"]", "simulate.thorough=true"});
    require_ended(run);
    // Of 200 gradients every one pushes two blocks by itself, and every second one two for its
    // node.
    CHECK(run.summary.books.applied == 200 * 2 + 100 * 2);
    std::map<BlockId, std::map<std::uint64_t, int>> staleness;
    for (const LedgerEntry& entry : run.ledger) {
        const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
        if (verdict == nullptr) continue;
        for (const auto& row : verdict->rows) {
            ++staleness[row.block][row.staleness];
            if (row.block.value < 2) {  // pushed by the first of a node, for 32 samples
                CHECK(verdict->worker.value % 2 == 0);
                CHECK(verdict->samples == 32);
            } else {
                CHECK(verdict->samples == 16);
            }
        }
    }
    const auto mean = [&](std::uint64_t block) {
        double sum = 0;
        double count = 0;
        for (const auto& [versions, times] : staleness[BlockId{block}]) {
            sum += static_cast<double>(versions) * times;
            count += times;
        }
        return sum / count;
    };
    CHECK(mean(0) == Approx(1).margin(0.1));  // two nodes
    CHECK(mean(3) == Approx(3).margin(0.3));  // four workers
}

TEST_CASE("in step: every third gradient is averaged where the job says so") {
    const SimulatedRun run =
        simulate(kNodesJob, {"sync.layers=[\"*\"]", "sync.every=3", "simulate.thorough=true"});
    require_ended(run);
    CHECK(value_of(run, 0, "sync.rounds") == Approx(200.0 / 4 / 3).margin(2));
    CHECK(run.summary.books.applied > 4 * 150);
}

TEST_CASE("in step: weights pulled ahead go with it") {
    const SimulatedRun run =
        simulate(kNodesJob, {"sync.layers=[\"*\"]", "worker.pull_ahead=1", "worker.push_pull=false",
                             "simulate.thorough=true"});
    require_ended(run);
    CHECK(run.summary.books.applied == 100 * 4);
    CHECK(run.summary.staleness.mean > 1.5);
}

TEST_CASE("in step: a rejection binds the node and all its members compute again") {
    const SimulatedRun run =
        simulate(kNodesJob, {"sync.layers=[\"*\"]", "staleness.policy=bounded_reject",
                             "staleness.tau_max=0", "worker.on_rejection=recompute",
                             "worker.most_recomputes=50", "simulate.thorough=true"});
    require_ended(run);
    CHECK(run.summary.books.rejected > 0);
    CHECK(run.summary.books.applied == 100 * 4);  // every batch's gradient came in
    CHECK(run.summary.staleness.max == 0);
    for (const std::uint32_t first : {0U, 2U}) {
        CHECK(value_of(run, first, "steps.recomputed") ==
              value_of(run, first + 1, "steps.recomputed"));
    }
}

TEST_CASE("in step: a lost member is left out and the node goes on with those that are left") {
    const std::string crash = R"(
[[simulate.fault]]
kind = "crash"
node = "worker:1"
at_s = 0.4
)";
    const SimulatedRun run = simulate(
        kNodesJob + crash, {"launch.nodes=1", "sync.layers=[\"*\"]", "simulate.thorough=true"});
    require_ended(run);
    CHECK(value_of(run, 0, "sync.groups_lost") == 1);
    CHECK(value_of(run, 3, "sync.groups_lost") == 1);
    CHECK(run.summary.batches_done == 1);
    CHECK(run.summary.staleness.max <= 1);
}

TEST_CASE("in step: a member that stands still is missed at the deadline and goes on by itself") {
    const SimulatedRun run = simulate(
        kNodesJob + kPause, {"launch.nodes=1", "sync.layers=[\"*\"]", "sync.deadline_s=0.5",
                             "simulate.thorough=true", "data.epochs=8"});
    require_ended(run);
    CHECK(value_of(run, 0, "sync.groups_lost") == 1);
    CHECK(value_of(run, 2, "sync.groups_lost") == 1);
    CHECK(value_of(run, 2, "steps") > 10);
    CHECK(run.summary.staleness.max > 0);  // two that push now
}

TEST_CASE("in step: a member that was missed is taken in again after a while by itself") {
    const auto rounds_of = [&](const char* epochs) {
        const SimulatedRun run = simulate(
            kNodesJob + kPause, {"launch.nodes=1", "sync.layers=[\"*\"]", "sync.deadline_s=0.5",
                                 "simulate.thorough=true", "simulate.compute.mean_s=0.1",
                                 std::string("data.epochs=") + epochs});
        require_ended(run);
        CHECK(value_of(run, 0, "sync.groups_lost") == 1);
        CHECK(value_of(run, 2, "sync.groups_lost") == 1);
        return std::pair{value_of(run, 0, "sync.rounds"), value_of(run, 2, "sync.rounds")};
    };
    const auto [others, missed] = rounds_of("1");  // five seconds: it is by itself at the end
    const auto [others_later, missed_later] = rounds_of("6");
    CHECK(missed_later - missed > 100);
    CHECK(missed_later - missed < others_later - others);
}

TEST_CASE("in step: one seed gives one digest for any number of threads") {
    const std::vector<std::string> job = {"sync.layers=[\"w0\", \"w2\"]",
                                          "simulate.network.drop=0.02",
                                          "simulate.collective.latency_s=0.001"};
    const SimulatedRun one = simulate(kNodesJob, job, 1);
    const SimulatedRun two = simulate(kNodesJob, job, 2);
    require_ended(one);
    CHECK(one.figures.digest == two.figures.digest);
    CHECK(one.figures.events == two.figures.events);
}

TEST_CASE("in step: a member that has no batch lets the round of the others pass") {
    // 25 batches of four workers, leased one by one: at the end three wait for the one that
    // computes.
    const SimulatedRun run =
        simulate(kNodesJob, {"launch.nodes=1", "sync.layers=[\"*\"]", "data.lease_batches=1",
                             "model.options.samples=400", "simulate.thorough=true"});
    require_ended(run);
    CHECK(run.summary.batches_done == 1);
    CHECK(run.summary.training_s < 2);  // and not the deadline of an average
}

TEST_CASE("in step: what cannot be averaged is refused before anything starts") {
    const auto refused = [](const std::vector<std::string>& overrides) {
        auto job = parse_job(kNodesJob, "job.toml", overrides);
        return job.has_error() ? job.error().text : std::string("accepted");
    };
    const std::string layers = "sync.layers=[\"*\"]";
    CHECK_THAT(refused({layers, "staleness.policy=ssp"}), Catch::Contains("whole steps"));
    CHECK_THAT(refused({layers, "worker.on_rejection=compensate"}),
               Catch::Contains("different weights"));
    CHECK_THAT(refused({layers, "conflict.space=representation"}),
               Catch::Contains("no gradients of their own"));
    CHECK_THAT(refused({layers, "conflict.method=modo"}), Catch::Contains("two halves"));
    const Job job = job_of(kNodesJob, {"sync.layers=[\"v*\"]"});
    const auto plan = make_plan(engines_for(job)->description(), job);
    REQUIRE(plan.has_error());
    CHECK_THAT(plan.error().text, Catch::Contains("sync.layers"));
}

}  // namespace
}  // namespace detente::test
