// Representation space and gates in whole clusters: the quadratic's trunk has its own weights as
// output, so that both spaces must give the same bits.
#include <limits>

#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

ClusterOptions space_options(const std::string& method) {
    ClusterOptions options;
    options.job.servers = 2;
    options.job.workers = 2;
    options.job.batch_samples = 16;
    options.job.rule.name = "sgd";
    options.job.rule.learning_rate = 0.02;
    options.job.policy.name = "async";
    options.job.policy.parameters = {};
    options.job.aggregator = {method, {}};
    options.model.tasks = 3;
    options.model.samples = 320;
    return options;
}

std::vector<float> weights_after(const ClusterOptions& options) {
    Cluster cluster(options);
    REQUIRE(cluster.run());
    REQUIRE(cluster.books().in_flight == 0);
    REQUIRE(cluster.books().applied == 20 * cluster.plan().blocks.size());
    return cluster.weights();
}

TEST_CASE("spaces: where the trunk passes its output on as it is, both give the same bits") {
    for (const std::string& method : aggregator_names()) {
        const auto made = make_aggregator({method, {}});
        REQUIRE(made.has_value());
        const AggregatorNeeds needs = (*made)->needs();
        if (needs.second_batch || needs.averages || needs.excess || needs.coordinates) continue;
        CAPTURE(method);
        ClusterOptions options = space_options(method);
        const std::vector<float> expected = weights_after(options);
        options.job.conflict_space = ConflictSpace::representation;
        CHECK(weights_after(options) == expected);
    }
}

TEST_CASE("spaces: the norm is clipped alike, to rounding") {
    ClusterOptions options = space_options("pcgrad");
    options.job.clip_norm = 0.7;
    options.job.workers = 1;
    const std::vector<float> expected = weights_after(options);
    options.job.conflict_space = ConflictSpace::representation;
    const std::vector<float> found = weights_after(options);
    options.job.clip_norm = 0;
    CHECK(weights_after(options) != found);
    for (std::size_t i = 0; i < found.size(); ++i) {
        CHECK(found[i] == Approx(expected[i]).epsilon(1e-4).margin(1e-5));
    }
}

TEST_CASE("spaces: methods with a half in the worker work at the output as well") {
    for (const char* policy : {"dana_slim", "easgd"}) {
        INFO(policy);
        ClusterOptions options = space_options("mgda");
        options.job.policy.name = policy;
        const std::vector<float> expected = weights_after(options);
        options.job.conflict_space = ConflictSpace::representation;
        CHECK(weights_after(options) == expected);
    }
}

TEST_CASE("spaces: NaN that the trunk makes stops the worker, naming the tensor, or is skipped") {
    for (const bool pull_ahead : {false, true}) {
        ClusterOptions options = space_options("mgda");
        options.job.conflict_space = ConflictSpace::representation;
        options.job.push_pull = !pull_ahead;
        options.job.pull_ahead = pull_ahead ? 1 : 0;
        options.model_of_worker[1] = options.model;
        options.model_of_worker[1].trunk_factor = std::numeric_limits<float>::quiet_NaN();
        {
            ClusterOptions alone = options;
            alone.job.workers = 1;
            alone.model_of_worker[0] = options.model_of_worker[1];
            Cluster cluster(alone);
            REQUIRE(cluster.run());
            const Stopped& last = cluster.coordinator().last.at(node_of(WorkerId{0}));
            CHECK(last.failed);
            CHECK(last.code == ErrorCode::not_finite);
            CHECK_THAT(last.error, Catch::Contains("tensor trunk.weight has NaN or Inf"));
            CHECK(cluster.books().applied == 0);
        }
        options.job.on_not_finite = OnNotFinite::skip;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        CHECK_FALSE(cluster.coordinator().last.at(node_of(WorkerId{1})).failed);
        CHECK(cluster.finished_batches == 20);
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.books().applied > 0);
        CHECK(cluster.books().applied < 20 * cluster.plan().blocks.size());
        for (const float w : cluster.weights()) REQUIRE(std::isfinite(w));
    }
}

TEST_CASE("spaces: so it is under step scope") {
    ClusterOptions options = space_options("mgda");
    options.job.policy.name = "bsp";
    options.job.conflict_space = ConflictSpace::representation;
    options.job.on_not_finite = OnNotFinite::skip;
    options.model_of_worker[1] = options.model;
    options.model_of_worker[1].trunk_factor = std::numeric_limits<float>::infinity();
    Cluster cluster(options);
    REQUIRE(cluster.run());
    CHECK(cluster.finished_batches == 20);
    CHECK(cluster.books().in_flight == 0);
}

TEST_CASE("gates: what they learn does not depend on the number of shards") {
    std::vector<float> first;
    for (const std::uint32_t shards : {1U, 2U, 4U}) {
        ClusterOptions options = space_options("pcgrad");
        options.job.workers = 1;
        options.job.servers = shards;
        options.job.block_bytes = 4096;
        options.model.trunk_elements = 3000;
        options.model.gated = true;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        if (first.empty()) first = cluster.weights();
        CHECK(cluster.weights() == first);
        for (std::size_t t = 0; t < 3; ++t) CHECK(first[first.size() - 1 - t] != -1);
    }
}

// Both tasks start at the second one's target, on the far side of where the sum is least.
TEST_CASE("gates: the one of a task that helps the sum opens and of one that opposes it closes") {
    ClusterOptions options = space_options("sum");
    options.job.workers = 1;
    options.job.rule_for.push_back({"gates.*", options.job.rule, {}});
    options.job.rule_for.back().rule.learning_rate = 0.5;
    options.model.tasks = 2;
    options.model.gated = true;
    options.model.noise = 0;
    options.model.equal_elements = true;  // targets 0 and 1 for every element, from 1
    Cluster cluster(options);
    REQUIRE(cluster.run());
    const std::vector<float> weights = cluster.weights();
    const float* a = weights.data() + weights.size() - 2;
    CHECK(weights[0] > 0.5F);
    CHECK(weights[0] < 1);
    CHECK(a[0] > -1);
    CHECK(a[1] < -1);
}

}  // namespace
}  // namespace detente::test
