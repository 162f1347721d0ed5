// Tasks split over workers, and resolved across them, in whole clusters.
#include <set>

#include "common/partition/task_placement.h"
#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

ClusterOptions split_cluster(std::uint64_t seed = 1) {
    ClusterOptions options = small_cluster(seed);
    options.job.split_tasks = true;
    options.job.aggregator = {"sum", {}};
    return options;
}

ClusterOptions projecting_cluster(std::uint64_t seed = 1) {
    ClusterOptions options = split_cluster(seed);
    options.job.across.method = AcrossMethod::project;
    options.job.across.compensate = 0.04;
    return options;
}

void make_bad_weather(ClusterOptions& options) {
    options.world.network.drop = 0.05;
    options.world.network.duplicate = 0.05;
    options.world.network.jitter = Nanos(2'000'000);
}

// How often each batch was applied, by task: of the trunk's verdicts, which every task pushes to.
std::map<BatchRange, int> applied_batches(Cluster& cluster) {
    std::map<BatchRange, int> times;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push == nullptr) continue;
            for (const VerdictRecord::Row& row : push->rows) {
                CHECK(row.tasks == push->batch.tasks);
                CHECK(row.tasks.count() == 1);
                const bool trunk = row.block == BlockId{0};
                if (trunk && row.verdict == Verdict::applied) ++times[push->batch];
            }
        }
    }
    return times;
}

// Which tasks' batches each worker was leased.
std::map<WorkerId, TaskSet> leased_tasks(Cluster& cluster) {
    std::map<WorkerId, TaskSet> tasks;
    for (const LedgerEntry& entry : cluster.world().ledger(node_of(kLeadShard))) {
        const auto* lease = std::get_if<LeaseRecord>(&entry.record);
        if (lease != nullptr) tasks[lease->worker].bits |= lease->range.tasks.bits;
    }
    return tasks;
}

}  // namespace

TEST_CASE("split cluster: every sample is computed and applied once per task") {
    for (const std::size_t tasks : {1U, 2U, 5U}) {
        for (const bool weather : {false, true}) {
            ClusterOptions options = split_cluster();
            options.model.tasks = tasks;
            if (weather) make_bad_weather(options);
            INFO(tasks << " tasks, bad weather " << weather);
            Cluster cluster(options);
            REQUIRE(cluster.run());
            CHECK(cluster.finished_batches == tasks * batches_of(options));
            CHECK(cluster.leased_batches == tasks * batches_of(options));
            const auto times = applied_batches(cluster);
            CHECK(times.size() == tasks * batches_of(options));
            for (const auto& [batch, count] : times) CHECK(count == 1);
            CHECK(cluster.books().in_flight == 0);
            // A step is of the trunk and one head; the other heads are cancelled.
            const std::uint64_t steps = cluster.finished_batches;
            CHECK(cluster.books().applied == 2 * steps);
            CHECK(cluster.books().rejected == 0);
            CHECK(cluster.books().cancelled >= (tasks - 1) * steps);
        }
    }
}

TEST_CASE("split cluster: while all have work each worker computes what is placed on it") {
    ClusterOptions options = split_cluster();
    options.job.workers = 2;
    options.model.tasks = 4;
    Cluster cluster(options);
    // Up to here nobody has run out of its own.
    REQUIRE(cluster.run_until([&] { return cluster.finished_batches >= 60; }));
    const auto placed =
        place_tasks(cluster.model().tasks, trained_tasks(cluster.plan()), all_workers(2));
    CHECK(leased_tasks(cluster) == placed);
}

TEST_CASE("split cluster: a worker that dies leaves its tasks to the others") {
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = split_cluster(seed);
        options.job.workers = 2;
        Cluster cluster(options);
        const NodeId victim = node_of(WorkerId{1});
        cluster.after_start(std::chrono::milliseconds(10), [&] {
            cluster.world().crash(victim);
            cluster.world().announce_down(victim, Incarnation{1}, "killed by signal 9");
        });
        REQUIRE(cluster.run());
        CHECK(cluster.finished_batches == 2 * batches_of(options));
        CHECK(leased_tasks(cluster).at(WorkerId{0}) == TaskSet{3});
        const auto times = applied_batches(cluster);
        CHECK(times.size() == 2 * batches_of(options));
        // After the loss the survivor asks for all tasks: it computes them by turns.
        std::vector<TaskSet> order;
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(kLeadShard))) {
            const auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push != nullptr) order.push_back(push->batch.tasks);
        }
        std::size_t turns = 0;
        for (std::size_t i = 1; i < order.size(); ++i) turns += order[i] != order[i - 1] ? 1 : 0;
        CHECK(turns > order.size() / 2);
    }
}

TEST_CASE("split cluster: tasks are placed anew when somebody goes and not at every lease") {
    ClusterOptions options = split_cluster();
    options.job.workers = 3;
    options.job.lease_batches = 1;
    Cluster cluster(options);
    cluster.after_start(std::chrono::milliseconds(10), [&] {
        const NodeId victim = node_of(WorkerId{1});
        cluster.world().crash(victim);
        cluster.world().announce_down(victim, Incarnation{1}, "killed by signal 9");
    });
    REQUIRE(cluster.run());
    CHECK(cluster.leased_batches >= 2 * batches_of(options));
    // All, without the lost one, and without the first that finds nothing left.
    CHECK(cluster.placement().computed() <= 4);
}

TEST_CASE("split cluster: a slow worker's task is finished by whoever is free") {
    ClusterOptions options = split_cluster();
    options.job.workers = 2;
    options.world.compute_time = [](NodeId node, const Work& work, std::uint64_t) {
        if (!std::holds_alternative<GradientWork>(work)) return Nanos{0};
        return Nanos(node.index == 0 ? 1'000'000 : 40'000'000);
    };
    Cluster cluster(options);
    REQUIRE(cluster.run());
    CHECK(cluster.finished_batches == 2 * batches_of(options));
    const auto leased = leased_tasks(cluster);
    CHECK(leased.at(WorkerId{0}) == TaskSet{3});
    CHECK(leased.at(WorkerId{1}).count() == 1);
}

TEST_CASE("split cluster: rejected gradients are repaired for their task alone") {
    for (const OnRejection repair :
         {OnRejection::recompute, OnRejection::compensate, OnRejection::refresh}) {
        ClusterOptions options = split_cluster();
        options.job.policy = {"bounded_reject", {{"tau_max", "1"}}};
        options.job.on_rejection = repair;
        options.job.workers = 4;
        make_bad_weather(options);
        Cluster cluster(options);
        REQUIRE(cluster.run());
        CHECK(cluster.books().rejected > 0);
        CHECK(cluster.finished_batches == 2 * batches_of(options));
        CHECK(cluster.books().in_flight == 0);
        applied_batches(cluster);
    }
}

TEST_CASE("across: a run is the same twice to the bit, in bad weather too") {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        ClusterOptions options = projecting_cluster(seed);
        options.model.tasks = 3;
        make_bad_weather(options);
        Cluster first(options);
        Cluster second(options);
        REQUIRE(first.run());
        REQUIRE(second.run());
        CHECK(first.weights() == second.weights());
        CHECK(first.finished_batches == 3 * batches_of(options));
    }
}

TEST_CASE("across: one worker gives the same weights on one, two and four shards") {
    std::vector<std::vector<float>> weights;
    for (const std::uint32_t servers : {1U, 2U, 4U}) {
        ClusterOptions options = projecting_cluster();
        options.job.workers = 1;
        options.job.servers = servers;
        options.job.block_bytes = 4096;
        options.model.trunk_elements = 3000;
        options.model.tasks = 3;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        weights.push_back(cluster.weights());
    }
    CHECK(weights[0] == weights[1]);
    CHECK(weights[0] == weights[2]);
}

TEST_CASE("across: what is projected changes the run and what remembers nothing does not") {
    ClusterOptions options = split_cluster();
    options.job.workers = 1;  // nothing but the gradients differs
    Cluster off(options);
    REQUIRE(off.run());
    options.job.across.method = AcrossMethod::project;
    Cluster on(options);
    std::uint64_t projected = 0;
    std::uint64_t arrived = 0;
    on.watcher = [&](NodeId id, Time) {
        if (id.role != Role::shard) return;
        const AcrossFigures& figures = on.shard(id.index).store().across();
        if (figures.arrived == 0) return;
        arrived = figures.arrived;
        projected = figures.projected;
    };
    REQUIRE(on.run());
    CHECK(arrived == 2 * batches_of(options));  // one trunk block
    CHECK(projected > 0);
    CHECK(projected < arrived);
    CHECK(on.weights() != off.weights());
    // Heads are their tasks' own.
    for (const auto& [block, values] : on.weights_by_block()) {
        if (on.plan().block(block).shared()) continue;
        CHECK(values == off.weights_by_block().at(block));
    }
}

TEST_CASE("split cluster: an unsplit job's pushes name no task of their batch and all owners") {
    ClusterOptions options = small_cluster();
    Cluster cluster(options);
    REQUIRE(cluster.run());
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push == nullptr) continue;
            CHECK(push->batch.tasks.empty());
            for (const auto& row : push->rows) {
                CHECK(row.tasks == cluster.plan().block(row.block).owners);
            }
        }
    }
    CHECK(cluster.finished_batches == batches_of(options));
}

}  // namespace detente::test
