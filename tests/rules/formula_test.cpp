// Values worked out by hand, and properties that no tolerance can hide.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <new>

#include "tests/rules/rule_cases.h"

namespace {
thread_local std::size_t allocations = 0;
}  // namespace
void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* memory = std::malloc(bytes)) return memory;
    throw std::bad_alloc();
}
// Replaced too, or the address sanitizer sees its own allocation freed by ours.
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
    ++allocations;
    return std::malloc(bytes);
}
// Not inlined: GCC 12 would compare their free() with the operator new it did not inline, and warn.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*bytes*/) noexcept {
    std::free(memory);
}

namespace detente::test {
namespace {

std::vector<float> after(const RuleConfig& config, const std::vector<float>& start,
                         const std::vector<std::vector<float>>& gradients, float clip_value = 0) {
    const auto rule = make_rule(config).value();
    Block block(*rule, start);
    std::uint64_t t = 0;
    for (const auto& gradient : gradients) {
        rule->apply(step_at(config, ++t, clip_value), block.arrays(bytes_of(gradient).data()));
    }
    return {block.weights.floats().begin(), block.weights.floats().end()};
}

RuleConfig named(const char* name, double learning_rate) {
    RuleConfig config = rule_defaults(name).value();
    config.learning_rate = learning_rate;
    return config;
}

TEST_CASE("sgd: two steps with momentum, by hand") {
    RuleConfig config = named("sgd", 0.5);
    config.momentum = 0.5;
    // b: 1, then 0.5 + 2 = 2.5; w: 4 - 0.5 = 3.5, then 3.5 - 1.25 = 2.25
    CHECK(after(config, {4}, {{1}, {2}})[0] == 2.25F);
    config.nesterov = true;
    // steps: 1 + 0.5, then 2 + 1.25; w: 4 - 0.75 = 3.25, then 3.25 - 1.625
    CHECK(after(config, {4}, {{1}, {2}})[0] == 1.625F);
}

TEST_CASE("adam: at t = 1 the bias corrections cancel, and the step is the learning rate") {
    for (const char* name : {"adam", "adamw"}) {
        RuleConfig config = named(name, 1e-3);
        config.weight_decay = 0;
        for (const float slope : {1e-3F, -0.5F, 7.0F, -3e4F}) {
            const float moved = after(config, {0}, {{slope}})[0];
            CHECK(moved == Approx(slope > 0 ? -1e-3 : 1e-3).epsilon(2e-5));
        }
    }
}

TEST_CASE("adam: t is what the step says, not how often the object was called") {
    const RuleConfig config = named("adam", 1e-3);
    const auto rule = make_rule(config).value();
    const std::vector<float> gradient = {2};
    const auto moved_at = [&](std::uint64_t t) {
        Block block(*rule, {0});
        rule->apply(step_at(config, t), block.arrays(bytes_of(gradient).data()));
        return static_cast<double>(block.weights.floats()[0]);
    };
    const double first = moved_at(1);
    // From zero state: m = .1 g, v = .001 g², so the step is lr · (.1/(1-.9^t)) /
    // √(.001/(1-.999^t)).
    const double later =
        -1e-3 * (0.1 / (1 - std::pow(0.9, 50))) / std::sqrt(0.001 / (1 - std::pow(0.999, 50)));
    CHECK(moved_at(50) == Approx(later).epsilon(1e-5));
    CHECK(moved_at(1) == first);
}

TEST_CASE("adamw: decay acts on the weights alone, adam's goes through the moments") {
    RuleConfig config = named("adamw", 0.1);
    config.weight_decay = 0.5;
    CHECK(after(config, {8}, {{0}})[0] == Approx(8 * 0.95));
    config.name = "adam";
    CHECK(after(config, {8}, {{0}})[0] == Approx(8 - 0.1));
}

TEST_CASE("adagrad: starts from its initial accumulator, and rates fall with the sum of squares") {
    RuleConfig config = named("adagrad", 1);
    config.eps = 0;
    CHECK(after(config, {0}, {{3}})[0] == -1.0F);
    CHECK(after(config, {0}, {{3}, {4}})[0] == Approx(-1.8));  // 4 / √(9 + 16)
    config.initial_accumulator_value = 16;
    CHECK(after(config, {0}, {{3}})[0] == Approx(-0.6));
}

TEST_CASE("clip: equals clipping the gradient first, bit for bit, and 0 means off") {
    constexpr std::size_t kElements = 83;
    const std::vector<float> start = draw(1, kElements);
    const std::vector<float> gradient = draw(2, kElements, 5);
    std::vector<float> clipped = gradient;
    for (float& value : clipped) value = std::fmin(std::fmax(value, -0.5F), 0.5F);
    REQUIRE(clipped != gradient);
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        CHECK(after(rule_case.config, start, {gradient}, 0.5F) ==
              after(rule_case.config, start, {clipped}, 0));
        CHECK(after(rule_case.config, start, {gradient}, 1e6F) ==
              after(rule_case.config, start, {gradient}, 0));
    }
    CHECK(after(named("sgd", 1), {0, 0, 0}, {{9, -9, 0.25F}}, 2) ==
          std::vector<float>{-2, 2, -0.25F});
}

TEST_CASE("rules: a learning rate of zero leaves weights alone, decay included") {
    const std::vector<float> start = draw(3, 45);
    for (RuleCase rule_case : every_rule()) {
        INFO(rule_case.title);
        rule_case.config.learning_rate = 0;
        CHECK(after(rule_case.config, start, {draw(4, 45), draw(5, 45)}) == start);
    }
}

TEST_CASE("rules: applying allocates nothing") {
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        const auto rule = make_rule(rule_case.config).value();
        const std::vector<float> gradient = draw(6, 301);
        Block block(*rule, draw(7, 301));
        const RuleArrays arrays = block.arrays(bytes_of(gradient).data());
        const RuleStep step = step_at(rule_case.config, 1, 0.5F);
        const std::size_t before = allocations;
        rule->apply(step, arrays);
        const std::size_t made = allocations - before;
        CHECK(made == 0);
    }
    const std::size_t before = allocations;
    CHECK(draw(1, 10).size() == 10);
    CHECK(allocations > before);  // the counter counts
}

}  // namespace
}  // namespace detente::test
