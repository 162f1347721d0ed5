// Every rule beside the optimizer of LibTorch that it says it equals, on the same inputs.
#include <torch/optim.h>
#include <torch/types.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "tests/rules/rule_cases.h"

namespace detente::test {
namespace {

constexpr std::int64_t kElements = 1031;
constexpr int kSteps = 100;

std::unique_ptr<torch::optim::Optimizer> torch_optimizer(const RuleConfig& c,
                                                         const torch::Tensor& weights) {
    const std::vector<torch::Tensor> parameters = {weights};
    const double lr = c.learning_rate;
    if (c.name == "sgd") {
        return std::make_unique<torch::optim::SGD>(parameters, torch::optim::SGDOptions(lr)
                                                                   .momentum(c.momentum)
                                                                   .nesterov(c.nesterov)
                                                                   .weight_decay(c.weight_decay));
    }
    if (c.name == "adagrad") {
        return std::make_unique<torch::optim::Adagrad>(
            parameters, torch::optim::AdagradOptions(lr)
                            .eps(c.eps)
                            .weight_decay(c.weight_decay)
                            .initial_accumulator_value(c.initial_accumulator_value));
    }
    if (c.name == "rmsprop") {
        return std::make_unique<torch::optim::RMSprop>(parameters,
                                                       torch::optim::RMSpropOptions(lr)
                                                           .alpha(c.alpha)
                                                           .eps(c.eps)
                                                           .momentum(c.momentum)
                                                           .weight_decay(c.weight_decay));
    }
    const std::tuple<double, double> betas(c.beta1, c.beta2);
    if (c.name == "adam") {
        return std::make_unique<torch::optim::Adam>(
            parameters,
            torch::optim::AdamOptions(lr).betas(betas).eps(c.eps).weight_decay(c.weight_decay));
    }
    return std::make_unique<torch::optim::AdamW>(
        parameters,
        torch::optim::AdamWOptions(lr).betas(betas).eps(c.eps).weight_decay(c.weight_decay));
}

torch::Tensor tensor_of(const std::vector<float>& values) {
    torch::Tensor tensor = torch::empty({static_cast<std::int64_t>(values.size())});
    std::copy(values.begin(), values.end(), tensor.data_ptr<float>());
    return tensor;
}

// Largest difference between the two after kSteps, beside the largest weight.
double relative_difference(const RuleConfig& config) {
    const auto rule = make_rule(config).value();
    const std::vector<float> start = draw(1, kElements);
    Block block(*rule, start);
    torch::Tensor weights = tensor_of(start).set_requires_grad(true);
    const auto optimizer = torch_optimizer(config, weights);
    for (int step = 1; step <= kSteps; ++step) {
        const std::vector<float> gradient = draw(100 + step, kElements);
        rule->apply(step_at(config, static_cast<std::uint64_t>(step)),
                    block.arrays(bytes_of(gradient).data()));
        weights.mutable_grad() = tensor_of(gradient);
        optimizer->step();
    }
    double worst = 0;
    double largest = 0;
    for (std::size_t i = 0; i < kElements; ++i) {
        const double theirs = weights.data_ptr<float>()[i];
        worst = std::max(worst, std::fabs(block.weights.floats()[i] - theirs));
        largest = std::max(largest, std::fabs(theirs));
    }
    return worst / largest;
}

TEST_CASE("rules: 100 steps of every rule equal torch::optim's to one part in a million") {
    for (const RuleCase& rule_case : every_rule()) {
        INFO(rule_case.title);
        CHECK(relative_difference(rule_case.config) < 1e-6);
    }
}

TEST_CASE("rules: defaults are those of torch::optim's option classes") {
    const auto adam = rule_defaults("adam").value();
    CHECK(adam.learning_rate == torch::optim::AdamOptions().lr());
    CHECK(adam.eps == torch::optim::AdamOptions().eps());
    CHECK(adam.beta1 == std::get<0>(torch::optim::AdamOptions().betas()));
    CHECK(adam.beta2 == std::get<1>(torch::optim::AdamOptions().betas()));
    CHECK(rule_defaults("adamw")->weight_decay == torch::optim::AdamWOptions().weight_decay());
    CHECK(rule_defaults("adagrad")->eps == torch::optim::AdagradOptions().eps());
    CHECK(rule_defaults("adagrad")->learning_rate == torch::optim::AdagradOptions().lr());
    CHECK(rule_defaults("rmsprop")->alpha == torch::optim::RMSpropOptions().alpha());
    CHECK(rule_defaults("rmsprop")->eps == torch::optim::RMSpropOptions().eps());
    CHECK(rule_defaults("rmsprop")->learning_rate == torch::optim::RMSpropOptions().lr());
}

}  // namespace
}  // namespace detente::test
