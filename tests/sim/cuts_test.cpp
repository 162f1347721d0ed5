// Pulls at a consistent cut (worker.consistent_pulls): one version of the model on every shard.
#include "tests/sim/steps_cluster.h"

namespace detente::test {
namespace {

// Versions that each step of each worker was handed, over all shards.
using Handed = std::map<std::pair<NodeId, Step>, std::set<Version>>;

ClusterOptions torn_cluster(const std::string& policy, std::uint64_t seed) {
    ClusterOptions options = cluster_of(policy, seed);
    options.job.servers = 3;
    options.job.push_pull = false;
    options.job.data_epochs = 1;
    options.world.network.drop = 0.05;
    options.world.network.duplicate = 0.05;
    options.world.network.jitter = Nanos(4'000'000);
    return options;
}

void watch(ClusterOptions& options, Handed& handed) {
    options.world.wire = [&handed](const Message& message, bool, std::uint64_t) {
        if (const auto* reply = std::get_if<PullReply>(&message.body)) {
            for (const WeightBlock& block : reply->blocks) {
                handed[{message.envelope.to, reply->step}].insert(block.version);
            }
        }
        return std::optional(message);
    };
}

std::size_t torn(const Handed& handed) {
    return static_cast<std::size_t>(std::count_if(
        handed.begin(), handed.end(), [](const auto& one) { return one.second.size() > 1; }));
}

TEST_CASE("cuts: under every step policy and faults no pull is torn, and without them some are") {
    std::size_t torn_without = 0;
    for (const std::string& policy : step_policies()) {
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = torn_cluster(policy, seed);
            options.job.consistent_pulls = true;
            Handed handed;
            watch(options, handed);
            Cluster cluster(options);
            require_finished(cluster, options);
            require_no_failure(cluster);
            CHECK(torn(handed) == 0);
            CHECK(handed.size() >= batches_of(options));

            Handed without;
            options.job.consistent_pulls = false;
            watch(options, without);
            Cluster plain(options);
            require_finished(plain, options);
            torn_without += torn(without);
        }
    }
    CHECK(torn_without > 0);
}

TEST_CASE("cuts: a worker that is lost between its requests leaves nothing that others wait for") {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = torn_cluster("ssp", seed);
        options.job.consistent_pulls = true;
        options.job.push_pull = true;  // of no effect then
        Handed handed;
        watch(options, handed);
        Cluster cluster(options);
        const NodeId victim = node_of(WorkerId{2});
        cluster.after_start(Nanos(7'000'000 * seed), [&cluster, victim] {
            cluster.world().crash(victim);
            cluster.world().announce_down(victim, Incarnation{1}, "killed by signal 9");
        });
        REQUIRE(cluster.run());
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.finished_batches == batches_of(options));
        CHECK(torn(handed) == 0);
    }
}

// Found by detente fuzz (seed 2180): a decision that was lost and sent again made a shard without
// blocks hand out nothing, late, to a worker that was held by then. And one that has frozen blocks
// only took every pull for a late double, so that workers waited for ever.
TEST_CASE("cuts: a shard that trains nothing makes none, and hands out what it is asked for once") {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = torn_cluster("ssp", seed);
        options.job.consistent_pulls = true;
        options.job.servers = 5;  // for a trunk and two heads
        options.job.frozen = {"head1.*"};
        options.world.network.drop = 0.15;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        require_no_failure(cluster);
        REQUIRE(cluster.books().in_flight == 0);
        REQUIRE(cluster.finished_batches == batches_of(options));
        std::size_t without_blocks = 0;
        std::size_t frozen = 0;
        for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
            const auto& blocks = cluster.plan().by_shard[i];
            const bool trains = std::any_of(blocks.begin(), blocks.end(), [&](BlockId block) {
                return cluster.plan().block(block).trainable();
            });
            if (trains) continue;
            ++(blocks.empty() ? without_blocks : frozen);
            for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
                const auto* pull = std::get_if<PullRecord>(&entry.record);
                if (pull == nullptr) continue;
                CHECK_FALSE(blocks.empty());
                CHECK(pull->step == Step{1});
            }
        }
        CHECK(without_blocks == 2);
        CHECK(frozen == 1);
    }
}

TEST_CASE("cuts: what they hold is copied where updates would wait for it") {
    ClusterOptions options = torn_cluster("softsync", 1);
    options.job.servers = 2;
    options.job.workers = 6;
    options.job.consistent_pulls = true;
    options.model.trunk_elements = 12U << 20U;  // 24 MiB on each shard, of 40 MiB of spares
    options.model.samples = 320;
    Handed handed;
    watch(options, handed);
    Cluster cluster(options);
    require_finished(cluster, options);
    require_no_failure(cluster);
    CHECK(torn(handed) == 0);
}

}  // namespace
}  // namespace detente::test
