// The update rules once more, in double, one element at a time and straight from torch.optim's
// documentation: slow, and written without a look at the fast ones.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "common/rules/rule.h"

namespace detente::reference {

// A block under one rule. Owned by a test.
class SlowRule {
  public:
    SlowRule(RuleConfig config, std::vector<double> weights)
        : config_(std::move(config)),
          weights_(std::move(weights)),
          first_(weights_.size(),
                 config_.name == "adagrad" ? config_.initial_accumulator_value : 0.0),
          second_(weights_.size(), 0.0) {}

    const std::vector<double>& weights() const { return weights_; }

    void step(const std::vector<float>& gradient, double learning_rate, double clip_value) {
        ++t_;
        for (std::size_t i = 0; i < weights_.size(); ++i) {
            double g = gradient[i];
            if (clip_value > 0 && g > clip_value) g = clip_value;
            if (clip_value > 0 && g < -clip_value) g = -clip_value;
            element(i, g, learning_rate);
        }
    }

  private:
    void element(std::size_t i, double g, double lr) {
        const RuleConfig& c = config_;
        double& w = weights_[i];
        double& a = first_[i];
        double& b = second_[i];
        if (c.name == "adamw") {
            w = w - lr * c.weight_decay * w;
        } else {
            g = g + c.weight_decay * w;
        }
        if (c.name == "sgd") {
            if (c.momentum == 0) {
                w = w - lr * g;
                return;
            }
            a = t_ == 1 ? g : c.momentum * a + g;
            w = w - lr * (c.nesterov ? g + c.momentum * a : a);
        } else if (c.name == "adagrad") {
            a = a + g * g;
            w = w - lr * g / (std::sqrt(a) + c.eps);
        } else if (c.name == "rmsprop") {
            a = c.alpha * a + (1 - c.alpha) * g * g;
            const double scaled = g / (std::sqrt(a) + c.eps);
            b = c.momentum * b + scaled;
            w = w - lr * b;
        } else {
            a = c.beta1 * a + (1 - c.beta1) * g;
            b = c.beta2 * b + (1 - c.beta2) * g * g;
            const double mean = a / (1 - std::pow(c.beta1, t_));
            const double square = b / (1 - std::pow(c.beta2, t_));
            w = w - lr * mean / (std::sqrt(square) + c.eps);
        }
    }

    RuleConfig config_;
    int t_ = 0;
    std::vector<double> weights_;
    std::vector<double> first_;
    std::vector<double> second_;
};

}  // namespace detente::reference
