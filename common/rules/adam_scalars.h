// Inside common/rules only: Adam's scalars of one application, worked out in double and rounded
// once.
#pragma once

#include <cmath>

#include "common/invariant.h"
#include "common/rules/rule.h"

namespace detente {

struct AdamScalars {
    float beta1;
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float eps;
    float root_correction;  // 1 / √(1 − β₂ᵗ)
    float step_size;        // η / (1 − β₁ᵗ)
    float weight_decay;     // Adam: λ, added to the gradient
    float keep;             // AdamW: 1 − η·λ, multiplied into the weights
    float clip_value;
};

inline AdamScalars adam_scalars(const RuleConfig& config, const RuleStep& step) {
    invariant(step.update >= 1, "Adam's t counts from 1");
    const auto t = static_cast<double>(step.update);
    const double correction1 = 1 - std::pow(config.beta1, t);
    const double correction2 = 1 - std::pow(config.beta2, t);
    return {static_cast<float>(config.beta1),
            static_cast<float>(1 - config.beta1),
            static_cast<float>(config.beta2),
            static_cast<float>(1 - config.beta2),
            static_cast<float>(config.eps),
            static_cast<float>(1 / std::sqrt(correction2)),
            static_cast<float>(step.learning_rate / correction1),
            static_cast<float>(config.weight_decay),
            static_cast<float>(1 - step.learning_rate * config.weight_decay),
            step.clip_value};
}

}  // namespace detente
