// Policies that rewrite the gradient or the weights handed out, against double-precision
// references.
#include <catch2/catch.hpp>
#include <cmath>

#include "common/random.h"
#include "common/staleness/policy.h"

namespace detente {
namespace {

constexpr std::size_t kElements = 37;

std::vector<float> drawn(Random& random) {
    std::vector<float> values(kElements);
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
}

// One block with all that a policy keeps for it, as a shard keeps it, under plain SGD.
class Bench {
  public:
    Bench(const PolicyConfig& config, double learning_rate, std::uint32_t workers)
        : rate_(learning_rate), workers_(workers) {
        auto made = make_policy(config);
        REQUIRE(made.has_value());
        policy_ = std::move(*made);
        state_ = policy_->initial_state();
        weights.assign(kElements, 0.5F);
        block_.assign(policy_->needs().block_vectors, std::vector<float>(kElements, 0.0F));
    }

    std::vector<float> pull(std::uint32_t worker) {
        std::vector<float> out = weights;
        if (policy_->needs().look_ahead) policy_->look_ahead(rate_, vectors(worker), out);
        handed_out_[worker] = out;
        return out;
    }
    // What the rule was handed.
    std::vector<float> push(std::uint32_t worker, std::vector<float> gradient) {
        Arrived arrived;
        arrived.worker = WorkerId{worker};
        arrived.members = workers_;
        arrived.learning_rate = rate_;
        std::vector<PolicyOutcome> outcomes;
        policy_->on(arrived, state_, outcomes);
        REQUIRE(outcomes.size() == 1);
        if (policy_->needs().corrects) policy_->correct(arrived, state_, vectors(worker), gradient);
        const std::vector<float> before = weights;
        for (std::size_t i = 0; i < kElements; ++i) {
            weights[i] -= static_cast<float>(rate_) * gradient[i];
        }
        if (policy_->needs().step_averages) policy_->applied(rate_, before, vectors(worker));
        return gradient;
    }
    const Policy& policy() const { return *policy_; }
    std::vector<float> weights;

  private:
    BlockVectors vectors(std::uint32_t worker) {
        BlockVectors seen;
        seen.weights = weights;
        seen.stale = handed_out_[worker];
        for (auto& one : block_) seen.block_vectors.emplace_back(one);
        auto& own = own_[worker];
        own.resize(policy_->needs().worker_vectors, std::vector<float>(kElements, 0.0F));
        for (auto& one : own) seen.worker_vectors.emplace_back(one);
        return seen;
    }

    double rate_;
    std::uint32_t workers_;
    std::unique_ptr<const Policy> policy_;
    PolicyState state_;
    std::vector<std::vector<float>> block_;
    std::map<std::uint32_t, std::vector<float>> handed_out_;
    std::map<std::uint32_t, std::vector<std::vector<float>>> own_;
};

}  // namespace

TEST_CASE("dc_asgd: constant and adaptive compensation equal their formulas") {
    for (const bool adaptive : {false, true}) {
        Bench bench({"dc_asgd", {{"variant", adaptive ? "a" : "c"}}}, 0.1, 2);
        Random random(5);
        std::vector<double> mean_square(kElements, 0.0);
        std::vector<float> handed[2] = {bench.pull(0), bench.pull(1)};
        for (std::uint32_t step = 0; step < 40; ++step) {
            const std::uint32_t worker = step % 3 == 0 ? 1 : 0;
            const std::vector<float> gradient = drawn(random);
            const std::vector<float> before = bench.weights;
            const std::vector<float> corrected = bench.push(worker, gradient);
            for (std::size_t i = 0; i < kElements; ++i) {
                const double g = gradient[i];
                mean_square[i] = 0.95 * mean_square[i] + 0.05 * g * g;
                const double lambda = adaptive ? 2.0 / std::sqrt(mean_square[i] + 1e-7) : 0.04;
                const double moved = static_cast<double>(before[i]) - handed[worker][i];
                CHECK(corrected[i] ==
                      Approx(g + lambda * g * g * moved).epsilon(1e-4).margin(1e-6));
            }
            handed[worker] = bench.pull(worker);
        }
    }
}

TEST_CASE("dc_asgd, gap_aware: a gradient that is not stale is left as it is, to the bit") {
    for (const std::string name : {"dc_asgd", "gap_aware"}) {
        Bench bench({name, {}}, 0.1, 1);
        Random random(6);
        for (int step = 0; step < 10; ++step) {
            bench.pull(0);
            const std::vector<float> gradient = drawn(random);
            CHECK(bench.push(0, gradient) == gradient);
        }
    }
}

TEST_CASE("gap_aware: each coordinate is divided by 1 + its gap in usual steps") {
    const double eta = 0.1;
    Bench bench({"gap_aware", {{"decay", "0.8"}}}, eta, 2);
    Random random(7);
    std::vector<double> average(kElements, 0.0);
    const std::vector<float> stale = bench.pull(1);
    for (int step = 0; step < 5; ++step) {
        bench.pull(0);
        const std::vector<float> before = bench.weights;
        bench.push(0, drawn(random));
        for (std::size_t i = 0; i < kElements; ++i) {
            const double moved = (static_cast<double>(before[i]) - bench.weights[i]) / eta;
            average[i] = 0.8 * average[i] + 0.2 * moved * moved;
        }
    }
    const std::vector<float> gradient = drawn(random);
    const std::vector<float> before = bench.weights;
    const std::vector<float> corrected = bench.push(1, gradient);
    for (std::size_t i = 0; i < kElements; ++i) {
        const double gap = std::abs(static_cast<double>(before[i]) - stale[i]);
        const double expected = gradient[i] / (1 + gap / (eta * std::sqrt(average[i])));
        CHECK(corrected[i] == Approx(expected).epsilon(1e-4));
    }
}

TEST_CASE("dana: zero and slim are the same trajectory in other coordinates, to rounding") {
    const double eta = 0.05;
    Bench zero({"dana_zero", {}}, eta, 3);
    Bench slim({"dana_slim", {}}, eta, 3);
    const WorkerHalf* half = slim.policy().worker_half();
    REQUIRE(half != nullptr);
    std::vector<std::vector<float>> velocity(3, std::vector<float>(kElements, 0.0F));
    // Gradients of ½‖w − c‖², each at the weights its worker was handed.
    std::vector<std::vector<float>> at_zero;
    std::vector<std::vector<float>> at_slim;
    for (std::uint32_t worker = 0; worker < 3; ++worker) {
        at_zero.push_back(zero.pull(worker));
        at_slim.push_back(slim.pull(worker));
    }
    Random random(8);
    for (int step = 0; step < 60; ++step) {
        const auto worker = static_cast<std::uint32_t>(random.below(3));
        std::vector<float> g_zero(kElements);
        std::vector<float> g_slim(kElements);
        for (std::size_t i = 0; i < kElements; ++i) {
            const float centre = static_cast<float>(i % 5) - 2;
            g_zero[i] = at_zero[worker][i] - centre;
            g_slim[i] = at_slim[worker][i] - centre;
        }
        zero.push(worker, g_zero);
        WorkerHalf::Place place;
        place.vectors.emplace_back(velocity[worker]);
        half->before_push(place, g_slim);
        slim.push(worker, g_slim);
        at_zero[worker] = zero.pull(worker);
        at_slim[worker] = slim.pull(worker);
        for (std::size_t i = 0; i < kElements; ++i) {
            // What slim stores is what zero hands out.
            CHECK(at_slim[worker][i] == Approx(at_zero[worker][i]).epsilon(1e-3).margin(1e-3));
        }
    }
}

TEST_CASE("delayed_nesterov: plain steps of g/N, momentum refreshed at every N-th arrival") {
    Bench bench({"delayed_nesterov", {{"beta", "0.8"}, {"n", "3"}}}, 0.1, 5);
    Random random(9);
    std::vector<double> momentum(kElements, 0.0);
    std::vector<double> sum(kElements, 0.0);
    for (int step = 1; step <= 12; ++step) {
        const std::vector<float> gradient = drawn(random);
        const std::vector<float> corrected = bench.push(0, gradient);
        for (std::size_t i = 0; i < kElements; ++i) {
            double expected = gradient[i] / 3.0;
            sum[i] += gradient[i];
            if (step % 3 == 0) {
                momentum[i] = 0.8 * momentum[i] + sum[i] / 3;
                sum[i] = 0;
                expected += 0.8 * momentum[i];
            }
            CHECK(corrected[i] == Approx(expected).epsilon(1e-4).margin(1e-6));
        }
    }
}

TEST_CASE("easgd: one exchange moves worker and centre towards each other by alpha of their gap") {
    auto policy = make_policy({"easgd", {{"alpha", "0.3"}, {"tau", "2"}}});
    REQUIRE(policy.has_value());
    const WorkerHalf* half = (*policy)->worker_half();
    REQUIRE(half != nullptr);
    std::vector<float> own(2, 0.0F);
    const std::vector<float> centre = {1.0F, 2.0F};
    WorkerHalf::Place place;
    place.learning_rate = 0.1;
    place.workers = 3;
    place.pulled = centre;
    place.vectors.emplace_back(own);
    std::vector<float> weights = centre;
    half->before_compute(place, weights);
    CHECK(own == centre);  // it starts at the centre
    std::vector<float> gradient = {1.0F, -2.0F};
    half->before_push(place, gradient);  // no exchange yet
    CHECK(gradient == std::vector<float>{0.0F, 0.0F});
    CHECK(own[0] == Approx(0.9));
    CHECK(own[1] == Approx(2.2));
    place.computed = 1;
    weights = centre;
    half->before_compute(place, weights);
    CHECK(weights == own);
    gradient = {1.0F, 1.0F};
    half->before_push(place, gradient);
    CHECK(gradient[0] == Approx(-0.3 * (0.9 - 1.0)));
    CHECK(gradient[1] == Approx(-0.3 * (2.2 - 2.0)));
    CHECK(own[0] == Approx(0.9 - 0.3 * (0.9 - 1.0) - 0.1));
    CHECK(own[1] == Approx(2.2 - 0.3 * (2.2 - 2.0) - 0.1));
}

}  // namespace detente
