#include <catch2/catch.hpp>
#include <cmath>

#include "tests/reference/rule_reference.h"
#include "tests/rules/rule_cases.h"

namespace detente::test {
namespace {

constexpr std::size_t kElements = 1031;  // many vectors and a tail
constexpr int kSteps = 100;

// Largest |fast − slow| / (1 + |slow|) after kSteps with a rate that changes on the way.
double worst_difference(const RuleConfig& config, float clip_value) {
    const auto rule = make_rule(config).value();
    const std::vector<float> start = draw(1, kElements);
    Block block(*rule, start);
    reference::SlowRule slow(config, std::vector<double>(start.begin(), start.end()));
    for (int step = 1; step <= kSteps; ++step) {
        const std::vector<float> gradient = draw(100 + step, kElements, step % 10 == 0 ? 30 : 1);
        RuleStep now = step_at(config, static_cast<std::uint64_t>(step), clip_value);
        now.learning_rate *= 1.0 / (1 + step / 50);
        rule->apply(now, block.arrays(bytes_of(gradient).data()));
        slow.step(gradient, now.learning_rate, clip_value);
    }
    double worst = 0;
    for (std::size_t i = 0; i < kElements; ++i) {
        const double exact = slow.weights()[i];
        worst =
            std::max(worst, std::fabs(block.weights.floats()[i] - exact) / (1 + std::fabs(exact)));
    }
    return worst;
}

TEST_CASE("rules: 100 steps of every rule stay with the double-precision reference") {
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        CHECK(worst_difference(rule_case.config, 0) < 2e-6);
    }
}

TEST_CASE("rules: so they do when gradients are clipped by value") {
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        CHECK(worst_difference(rule_case.config, 0.75F) < 2e-6);
    }
}

}  // namespace
}  // namespace detente::test
