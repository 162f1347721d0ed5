// Whole clusters whose messages travel as bytes, and the altered ones among them.
#include "tests/sim/codec_wire.h"

#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

ClusterOptions cluster_of(std::uint64_t seed) {
    ClusterOptions options = small_cluster(seed);
    options.job.reply_deadline = std::chrono::milliseconds(20);
    if (seed % 3 == 0) options.job.push_pull = false;
    return options;
}

std::shared_ptr<WireCounts> travel_as_bytes(ClusterOptions& options) {
    auto counts = std::make_shared<WireCounts>();
    options.world.wire = codec_wire(counts);
    return counts;
}

TEST_CASE("codec wire: a run whose messages travel as bytes is the same run, event for event") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = cluster_of(seed);
        options.world.network.jitter = Nanos(300'000);
        options.world.network.drop = 0.02;
        options.world.network.duplicate = 0.02;
        Cluster plain(options);
        const auto counts = travel_as_bytes(options);
        Cluster bytes(options);
        REQUIRE(plain.run());
        REQUIRE(bytes.run());
        CHECK(counts->carried > 300);
        CHECK(bytes.world().events() == plain.world().events());
        CHECK((bytes.weights() == plain.weights()));
    }
}

TEST_CASE("codec wire: a flipped byte anywhere is noticed, counts as a loss, and is made good") {
    WireCounts all;
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = cluster_of(seed);
        options.world.network.corrupt = 0.05;
        if (seed % 2 == 0) {
            options.world.network.drop = 0.02;
            options.world.network.duplicate = 0.02;
            options.world.network.jitter = Nanos(2'000'000);
        }
        const auto counts = travel_as_bytes(options);
        Cluster cluster(options);
        REQUIRE(cluster.run());
        CHECK(cluster.world().traffic().refused == counts->refused);
        CHECK(cluster.world().traffic().corrupted ==
              counts->refused + counts->marked + counts->padding);
        all.refused += counts->refused;
        all.marked += counts->marked;
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.books().lost == 0);
        CHECK(cluster.finished_batches == batches_of(options));
        CHECK(cluster.books().applied == batches_of(options) * cluster.plan().blocks.size());
        for (const auto& [node, last] : cluster.coordinator().last) {
            INFO(to_string(node) << ": " << last.error);
            CHECK_FALSE(last.failed);
        }
    }
    CHECK(all.refused > 1000);
    CHECK(all.marked > 300);
}

TEST_CASE("codec wire: one worker's weights are the same whatever was altered on the way") {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        INFO("seed " << seed);
        ClusterOptions options = cluster_of(seed);
        options.job.workers = 1;
        // Otherwise the pull for the next step may overtake a push that was lost and sent again.
        options.job.push_pull = true;
        Cluster clean(options);
        REQUIRE(clean.run());
        options.world.network.corrupt = 0.1;
        const auto counts = travel_as_bytes(options);
        Cluster altered(options);
        REQUIRE(altered.run());
        CHECK(counts->refused > 0);
        CHECK(counts->marked > 0);
        CHECK((altered.weights() == clean.weights()));
    }
}

}  // namespace
}  // namespace detente::test
