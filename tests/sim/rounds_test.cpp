// Rounds of a node ([sync]) in a cluster whose computations end later than their parts come, as on
// a busy machine: verdicts overtake the end of the step they are of.
#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

ClusterOptions node_of_three(std::uint64_t seed = 1) {
    ClusterOptions options = small_cluster(seed);
    options.job.sync_layers = {"*"};
    return options;
}

}  // namespace

// Found by the first real run: a verdict that came before the end of the combination was taken for
// one that came before its beginning, and the worker waited for ever.
TEST_CASE("rounds: a verdict that comes before the end of the combination ends the round") {
    for (const Nanos delay : {Nanos{0}, Nanos{10'000}, Nanos{1'000'000}, Nanos{30'000'000}}) {
        INFO(delay.count() << " ns");
        ClusterOptions options = node_of_three();
        options.world.end_delay = delay;
        Cluster cluster(options);
        REQUIRE(cluster.run(Time{std::chrono::minutes(5)}));
        CHECK(cluster.finished_batches == batches_of(options));
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.books().lost == 0);
    }
}

TEST_CASE("rounds: where messages are lost and doubled no batch and no round is lost") {
    ClusterOptions options = node_of_three(7);
    options.job.workers = 5;
    options.job.lease_batches = 1;
    options.job.reply_deadline = std::chrono::milliseconds(100);
    options.world.network.duplicate = 0.1;
    options.world.network.drop = 0.02;
    options.world.end_delay = Nanos{100'000};
    Cluster cluster(options);
    REQUIRE(cluster.run(Time{std::chrono::minutes(30)}));
    CHECK(cluster.finished_batches == batches_of(options));
    CHECK(cluster.world().traffic().dropped > 0);
    CHECK(cluster.books().in_flight == 0);
    CHECK(cluster.books().lost == 0);
}

}  // namespace detente::test
