// Step scope on whole simulated clusters: the lead shard decides, all shards do the same in the
// same order, whatever the network loses, doubles and reorders, and whoever is lost.
#include <cmath>

#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

PolicyConfig policy_of(const std::string& name) {
    PolicyConfig policy;
    policy.name = name;
    if (name == "fedbuff") policy.parameters = {{"k", "3"}};
    if (name == "ringmaster") policy.parameters = {{"r", "3"}};
    if (name == "ssp" || name == "dssp") {
        policy.parameters = {{name == "ssp" ? "s" : "s_l", "1"}};
    }
    return policy;
}

const std::vector<std::string>& step_policies() {
    static const std::vector<std::string> names = {
        "bsp",      "backup_workers", "sync_switch", "ssp",        "dssp",
        "softsync", "fedbuff",        "rennala",     "ringmaster", "capacity"};
    return names;
}

ClusterOptions cluster_of(const std::string& policy, std::uint64_t seed) {
    ClusterOptions options;
    options.job.servers = 2;
    options.job.workers = 4;
    options.job.batch_samples = 16;
    options.job.data_epochs = 2;
    options.job.lease_batches = 2;
    options.job.rule.name = "sgd";
    options.job.rule.learning_rate = 0.05;
    options.job.policy = policy_of(policy);
    options.job.on_rejection = OnRejection::recompute;
    options.job.seed = seed;
    options.world.seed = seed;
    return options;
}

std::uint64_t batches_of(const ClusterOptions& options) {
    const std::uint64_t per_epoch =
        (options.model.samples + options.job.batch_samples - 1) / options.job.batch_samples;
    return per_epoch * options.job.data_epochs;
}

using Applied =
    std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>;  // worker, incarnation, step

// What each shard that has blocks applied, in its order; a step's parts count once.
std::vector<std::vector<Applied>> applied_by_shard(Cluster& cluster) {
    std::vector<std::vector<Applied>> shards;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        if (cluster.plan().by_shard[i].empty()) continue;
        std::vector<Applied>& order = shards.emplace_back();
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* record = std::get_if<VerdictRecord>(&entry.record);
            if (record == nullptr || record->rows.front().verdict != Verdict::applied) continue;
            const Applied one{record->worker.value, record->incarnation.value, record->step.value};
            if (order.empty() || order.back() != one) order.push_back(one);
        }
    }
    return shards;
}

void require_same_on_all_shards(Cluster& cluster) {
    const auto shards = applied_by_shard(cluster);
    for (std::size_t i = 0; i < shards.size(); ++i) {
        // A shard without a trainable block has nothing to apply.
        if (!cluster.plan().by_shard[i].empty()) REQUIRE(shards[i] == shards.front());
    }
    auto once = shards.front();
    std::sort(once.begin(), once.end());
    REQUIRE(std::adjacent_find(once.begin(), once.end()) == once.end());
    const Version version = cluster.versions.begin()->second;
    for (const auto& [block, other] : cluster.versions) REQUIRE(other == version);
}

// Every batch finished, nothing left in flight, all shards the same.
void require_finished(Cluster& cluster, const ClusterOptions& options) {
    REQUIRE(cluster.run());
    REQUIRE(cluster.books().in_flight == 0);
    REQUIRE(cluster.finished_batches == batches_of(options));
    require_same_on_all_shards(cluster);
}

void require_no_failure(Cluster& cluster) {
    for (const auto& [node, last] : cluster.coordinator().last) {
        INFO(to_string(node) << ": " << last.error);
        REQUIRE_FALSE(last.failed);
    }
}

}  // namespace

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

TEST_CASE("step scope: a lost worker tears no step and holds nobody up") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        for (const std::string& policy : step_policies()) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = cluster_of(policy, seed);
            options.world.network.drop = seed % 2 == 0 ? 0.05 : 0;
            options.world.network.jitter = Nanos(500'000);
            Cluster cluster(options);
            const NodeId victim = node_of(WorkerId{static_cast<std::uint32_t>(seed % 4)});
            cluster.in_training(Time{Nanos(2'000'000 + 700'000 * static_cast<std::int64_t>(seed))},
                                [&] {
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
            cluster.in_training(Time{Nanos(5'000'000)}, [&] {
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
            cluster.in_training(Time{Nanos(4'000'000)}, [&] {
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

}  // namespace detente::test
