// Step scope on whole simulated clusters: the lead shard decides, all shards do the same in the
// same order, whatever the network loses, doubles and reorders, and whoever is lost.
#include <algorithm>
#include <cmath>

#include "tests/sim/steps_cluster.h"

namespace detente::test {

TEST_CASE("step scope: the policies under test are those of the catalog that decide steps") {
    CHECK(step_policies().size() >= 11);
    for (const std::string& name : policy_names()) {
        INFO(name);
        const auto& tested = step_policies();
        Job job;
        job.policy = policy_of(name);
        CHECK(decides_steps(job) ==
              (std::find(tested.begin(), tested.end(), name) != tested.end()));
    }
}

TEST_CASE("step scope: every policy finishes every batch, the same on all shards") {
    for (const std::string& policy : step_policies()) {
        INFO(policy);
        const ClusterOptions options = cluster_of(policy, 7);
        Cluster cluster(options);
        require_finished(cluster, options);
        CHECK(cluster.books().lost == 0);
        require_no_failure(cluster);
    }
}

TEST_CASE("step scope: drops, doubles and reordering change nothing, for every policy") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        for (const std::string& policy : step_policies()) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of(policy, seed);
            options.job.workers = 2 + static_cast<std::uint32_t>(seed % 4);
            options.job.servers = 1 + static_cast<std::uint32_t>(seed % 3);
            options.world.network.drop = 0.08;
            options.world.network.duplicate = 0.08;
            options.world.network.jitter = Nanos(2'000'000);
            Cluster cluster(options);
            require_finished(cluster, options);
            REQUIRE(cluster.books().lost == 0);
            require_no_failure(cluster);
        }
    }
}

namespace {

// Steps of which gradients were staged at once, at most, on the shard that is only told of
// decisions: the lead's own come in the event of the last arrival.
double most_staged_steps(const ClusterOptions& options) {
    Cluster cluster(options);
    std::uint64_t bytes = 0;
    std::uint64_t most = 0;
    for (const BlockId id : cluster.plan().by_shard[1]) bytes += cluster.plan().block(id).bytes();
    cluster.watcher = [&](NodeId id, Time) {
        if (id != node_of(ShardId{1}) || !cluster.world().alive(id)) return;
        most = std::max(most, cluster.shard(1).staged_bytes());
    };
    require_finished(cluster, options);
    return static_cast<double>(most) / static_cast<double>(bytes);
}

}  // namespace

TEST_CASE("step scope: staged are a step of each worker and what the policy keeps and no more") {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        for (const std::string& name : step_policies()) {
            INFO(name << " seed " << seed);
            ClusterOptions options = cluster_of(name, seed);
            options.world.network.drop = 0.05;
            options.world.network.jitter = Nanos(2'000'000);
            const auto policy = make_policy(options.job.policy);
            const double staged = most_staged_steps(options);
            CHECK(staged > 0);
            CHECK(staged <= static_cast<double>(4 + (*policy)->most_kept(4)));
        }
    }
    CHECK(most_staged_steps(cluster_of("bsp", 3)) == 4);
    for (const auto& [name, parameter] : {std::pair{"fedbuff", "k"}, std::pair{"capacity", "b"}}) {
        INFO(name);
        ClusterOptions options = cluster_of(name, 3);
        options.job.policy.parameters = {{parameter, "12"}};
        const double staged = most_staged_steps(options);
        CHECK(staged >= 12);  // far more than one of each worker
        CHECK(staged <= 4 + 12);
    }
}

TEST_CASE("step scope: a lost worker tears no step and holds nobody up") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        for (const std::string& policy : step_policies()) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of(policy, seed);
            options.world.network.drop = seed % 2 == 0 ? 0.05 : 0;
            options.world.network.jitter = Nanos(500'000);
            Cluster cluster(options);
            const NodeId victim = node_of(WorkerId{static_cast<std::uint32_t>(seed % 4)});
            cluster.after_start(Nanos(2'000'000 + 700'000 * static_cast<std::int64_t>(seed)), [&] {
                if (!cluster.world().alive(victim)) return;
                cluster.world().crash(victim);
                cluster.world().announce_down(victim, Incarnation{1}, "lost");
            });
            require_finished(cluster, options);
        }
    }
}

TEST_CASE("step scope: shards without a trainable block act on decisions like the others") {
    for (const std::string& policy : step_policies()) {
        INFO(policy);
        ClusterOptions options = cluster_of(policy, 5);
        options.job.servers = 6;  // more shards than blocks
        options.world.network.drop = 0.05;
        Cluster cluster(options);
        require_finished(cluster, options);
        require_no_failure(cluster);
    }
}

TEST_CASE("step scope: policies that correct gradients, on several shards, with a lost worker") {
    for (const std::string policy :
         {"dc_asgd", "gap_aware", "delayed_nesterov", "dana_zero", "dana_slim", "easgd"}) {
        for (std::uint64_t seed = 1; seed <= 10; ++seed) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of(policy, seed);
            options.job.admission = Admission::step;
            options.world.network.drop = 0.05;
            options.world.network.jitter = Nanos(1'000'000);
            Cluster cluster(options);
            const NodeId victim = node_of(WorkerId{1});
            cluster.after_start(Nanos(5'000'000), [&] {
                if (!cluster.world().alive(victim)) return;
                cluster.world().crash(victim);
                cluster.world().announce_down(victim, Incarnation{1}, "lost");
            });
            require_finished(cluster, options);
        }
    }
}

TEST_CASE("step scope: a worker that starts again while its old push is staged tears nothing") {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        for (const std::string& policy : step_policies()) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of(policy, seed);
            options.world.network.drop = 0.03;
            options.world.network.jitter = Nanos(1'000'000);
            Cluster cluster(options);
            const WorkerId again{2};
            cluster.after_start(Nanos(4'000'000), [&] {
                if (!cluster.world().alive(node_of(again))) return;
                cluster.world().crash(node_of(again));
                cluster.add_worker(again, Incarnation{2}, options.model);
                Message welcome;
                welcome.envelope.from = kCoordinator;
                welcome.body = Welcome{};
                cluster.world().post(node_of(again), Received{welcome});
                Message go = welcome;
                go.body = Go{};
                cluster.world().post(node_of(again), Received{go});
            });
            require_finished(cluster, options);
        }
    }
}

TEST_CASE("bsp: each update is the average of all workers, nothing is stale") {
    ClusterOptions options = cluster_of("bsp", 3);
    Cluster cluster(options);
    REQUIRE(cluster.run());
    std::map<Version, int> together;
    for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{0}))) {
        const auto* record = std::get_if<VerdictRecord>(&entry.record);
        if (record == nullptr || record->rows.front().verdict != Verdict::applied) continue;
        CHECK(record->rows.front().staleness == 0);
        if (record->part.value == 0) ++together[record->rows.front().version];
    }
    int full = 0;
    for (const auto& [version, count] : together) {
        CHECK(count <= 4);
        full += count == 4 ? 1 : 0;
    }
    // Only the last updates, when there are fewer batches than workers, are of fewer.
    CHECK(full + 4 >= static_cast<int>(together.size()));
    CHECK(together.size() < batches_of(options) / 3);
}

TEST_CASE("step scope: a worker says how torn its pulls were, push_pull makes them a cut") {
    const auto torn = [](const std::string& policy, bool push_pull) {
        ClusterOptions options = cluster_of(policy, 11);
        options.job.push_pull = push_pull;
        options.world.network.jitter = Nanos(2'000'000);
        Cluster cluster(options);
        require_finished(cluster, options);
        std::pair<double, double> sum;
        for (std::uint32_t worker = 0; worker < options.job.workers; ++worker) {
            const Stopped& last = cluster.coordinator().last.at(node_of(WorkerId{worker}));
            for (const NamedValue& value : last.last.values) {
                if (value.name == "pull.torn_steps") sum.first += value.value;
                if (value.name == "pull.torn_max") sum.second = std::max(sum.second, value.value);
            }
        }
        return sum;
    };
    // A verdict brings the weights of its own place in the order of decisions, on every shard.
    for (const std::string policy : {"bsp", "ssp", "softsync", "capacity", "kardam"}) {
        INFO(policy);
        CHECK(torn(policy, true).first == 0);
    }
    CHECK(torn("bsp", false).first == 0);
    const auto [steps, largest] = torn("ssp", false);
    CHECK(steps > 0);
    CHECK(largest >= 1);
    CHECK(largest < 20);
}

}  // namespace detente::test
