// Kardam, filter by filter, and what it measures beside sums in double precision.
#include <catch2/catch.hpp>
#include <cmath>

#include "common/staleness/policy.h"

namespace detente {
namespace {

struct Lead {
    explicit Lead(std::uint32_t workers, PolicyConfig config = {"kardam", {}}) {
        auto made = make_policy(config);
        REQUIRE(made.has_value());
        policy = std::move(*made);
        state = policy->initial_state();
        for (std::uint32_t worker = 0; worker < workers; ++worker) on(Joined{WorkerId{worker}});
    }
    void on(const PolicyEvent& event) {
        outcomes.clear();
        policy->on(event, state, outcomes);
    }
    // A gradient whose coefficient is `k`; nothing: the weights have not moved.
    bool accepts(std::uint32_t worker, std::optional<double> k, std::uint64_t staleness = 0) {
        Arrived arrived;
        arrived.worker = WorkerId{worker};
        arrived.staleness = staleness;
        if (k) arrived.measured = {*k * *k * 4, 4};
        on(arrived);
        REQUIRE(outcomes.size() == 1);
        return std::holds_alternative<ApplyThese>(outcomes.front());
    }
    float scale() const { return std::get<ApplyThese>(outcomes.front()).step_scale; }
    std::unique_ptr<const Policy> policy;
    PolicyState state;
    std::vector<PolicyOutcome> outcomes;
};

}  // namespace

TEST_CASE("kardam: a coefficient above the (n - f)/n quantile of the members' latest is rejected") {
    Lead lead(4);  // f = 1
    CHECK(lead.accepts(0, 1.0));
    CHECK(lead.accepts(1, 2.0));
    CHECK(lead.accepts(2, 3.0));
    CHECK_FALSE(lead.accepts(3, 100.0));  // of {1, 2, 3, 100} the third is the limit
    REQUIRE(std::holds_alternative<RejectThis>(lead.outcomes.front()));
    CHECK(std::get<RejectThis>(lead.outcomes.front()).advice == Advice::refresh);
    CHECK_FALSE(lead.accepts(3, 3.1));  // {1, 2, 3, 3.1}
    CHECK(lead.accepts(3, 3.0));        // {1, 2, 3, 3}
    CHECK(lead.accepts(0, 2.5));        // the latest counts: {2.5, 2, 3, 3}
    CHECK_FALSE(lead.accepts(1, 3.5));  // {2.5, 3.5, 3, 3}
}

TEST_CASE("kardam: three workers filter nothing") {
    Lead lead(3);
    for (int round = 0; round < 3; ++round) {
        for (std::uint32_t worker = 0; worker < 3; ++worker) {
            CHECK(lead.accepts(worker, std::pow(10.0, round * 3 + worker)));
            CHECK(lead.accepts(worker, 1e9));
        }
    }
}

TEST_CASE("kardam: the last worker is still judged by what those who left had sent") {
    Lead lead(4);
    for (std::uint32_t worker = 0; worker < 4; ++worker) CHECK(lead.accepts(worker, 1.0));
    for (std::uint32_t worker = 0; worker < 3; ++worker) lead.on(Left{WorkerId{worker}});
    CHECK_FALSE(lead.accepts(3, 100.0));
    CHECK(lead.accepts(3, 1.0));
    CHECK(lead.accepts(3, 1.0));  // nobody else is there to take turns with
}

TEST_CASE("kardam: where nothing has moved there is no coefficient, and none is made up") {
    Lead lead(4);
    for (std::uint32_t worker = 0; worker < 4; ++worker) CHECK(lead.accepts(worker, {}));
    for (const auto& [id, worker] : lead.state.workers) CHECK(worker[0] < 0);
    CHECK(lead.accepts(0, 5.0));  // the first
}

TEST_CASE("kardam: of 2f + 1 gradients in a row no two are of one worker") {
    for (const std::uint32_t workers : {4U, 7U, 10U}) {
        INFO(workers);
        Lead lead(workers);
        const std::uint32_t f = (workers - 1) / 3;
        std::vector<std::uint32_t> accepted;
        std::uint64_t draw = 7;
        for (int i = 0; i < 2000; ++i) {
            draw = draw * 6364136223846793005ULL + 1442695040888963407ULL;
            const auto worker = static_cast<std::uint32_t>((draw >> 33U) % workers);
            if (lead.accepts(worker, 1.0)) accepted.push_back(worker);
        }
        CHECK(accepted.size() > 200);
        for (std::size_t end = 2 * f + 1; end <= accepted.size(); ++end) {
            std::vector<std::uint32_t> window(
                accepted.begin() + static_cast<std::ptrdiff_t>(end - 2 * f - 1),
                accepted.begin() + static_cast<std::ptrdiff_t>(end));
            std::sort(window.begin(), window.end());
            REQUIRE(std::adjacent_find(window.begin(), window.end()) == window.end());
        }
        CHECK(lead.state.values.size() <= 2 * f + 1);
    }
}

TEST_CASE("kardam: f may be given, up to a third of the members") {
    Lead lead(10, {"kardam", {{"f", "1"}}});
    CHECK(lead.accepts(0, {}));
    CHECK(lead.accepts(1, {}));
    CHECK_FALSE(lead.accepts(0, {}));  // the window is 3
    CHECK(lead.accepts(2, {}));
    CHECK(lead.accepts(0, {}));
    Lead most(4, {"kardam", {{"f", "9"}}});
    CHECK(most.accepts(0, {}));
    CHECK(most.accepts(1, {}));
    CHECK(most.accepts(2, {}));
    CHECK(most.accepts(0, {}));
}

TEST_CASE("kardam: the rate is dampened by staleness as the job says") {
    const auto scale = [](std::vector<std::pair<std::string, std::string>> parameters) {
        Lead lead(2, {"kardam", std::move(parameters)});
        REQUIRE(lead.accepts(0, {}, 3));
        return lead.scale();
    };
    CHECK(scale({}) == Approx(std::exp(-0.6)));
    CHECK(scale({{"alpha", "1"}}) == Approx(std::exp(-3.0)));
    CHECK(scale({{"dampening", "inverse"}}) == Approx(0.25));
    CHECK(scale({{"dampening", "none"}}) == 1);
}

TEST_CASE("kardam: measures each block against the gradient applied last, in double precision") {
    const Lead lead(4);
    constexpr std::size_t kElements = 37;
    std::vector<float> last(kElements);
    std::vector<float> at(kElements);
    std::vector<float> weights(kElements);
    std::vector<float> gradient(kElements);
    BlockVectors block;
    block.weights = weights;
    block.block_vectors = {last, at};
    for (std::size_t i = 0; i < kElements; ++i) {
        weights[i] = 0.3F * static_cast<float>(i);
        gradient[i] = 1 / (1 + static_cast<float>(i));
    }
    lead.policy->accepted(block, gradient);
    CHECK(last == gradient);
    CHECK(at == weights);
    double gradient_sq = 0;
    double weights_sq = 0;
    for (std::size_t i = 0; i < kElements; ++i) {
        const double g = std::sin(static_cast<double>(i));
        gradient[i] += static_cast<float>(g);
        weights[i] -= 0.01F * static_cast<float>(i);
        gradient_sq += std::pow(static_cast<double>(gradient[i]) - last[i], 2);
        weights_sq += std::pow(static_cast<double>(weights[i]) - at[i], 2);
    }
    const Measured sums = lead.policy->measure(block, gradient);
    CHECK(sums.gradient_sq == Approx(gradient_sq).epsilon(1e-12));
    CHECK(sums.weights_sq == Approx(weights_sq).epsilon(1e-12));
}

}  // namespace detente
