// An update rule turns weights and a gradient into new weights. Rules are const objects: state is
// passed in, so the same object serves a shard, the simulator and a replay. One rule per file; the
// catalog maps names in job files to objects.
//
// Bits: every rule gives the same bits for every vector width of one instruction set family, for
// in-place and out-of-place calls, and for any alignment of the gradient. Multiply-add is explicit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace detente {

// What one application is told besides the arrays.
struct RuleStep {
    double learning_rate = 0;  // after schedule, policy and step scale
    std::uint64_t update = 1;  // t in Adam: number of applications to this block, this one included
    float clip_value = 0;      // elementwise clip of the gradient to ±clip_value; 0 = off
};

// One block's arrays, all of `weights_in.size()` floats.
// Requires: weights_out is weights_in or disjoint from it; weights and slots 64-byte aligned; the
// gradient may lie at any address (bytes of little-endian float32).
struct RuleArrays {
    std::span<const float> weights_in;
    std::span<float> weights_out;
    const std::byte* gradient = nullptr;
    std::span<float> slot0;  // empty if the rule has fewer slots
    std::span<float> slot1;
};

class Rule {
  public:
    virtual ~Rule() = default;
    virtual std::string name() const = 0;
    // Arrays of state per block: SGD 0 or 1 (momentum), Adagrad 1, RMSprop 1 or 2, Adam 2.
    // All start at zero (Adagrad's at its initial accumulator: see initial_slot()).
    virtual int slots() const = 0;
    virtual float initial_slot(int /*slot*/) const { return 0.0F; }
    virtual void apply(const RuleStep& step, const RuleArrays& arrays) const = 0;
};

// Parameters under torch.optim's names. Where torch's defaults differ from rule to rule
// (learning_rate, eps, weight_decay), rule_defaults() has them; learning_rate and clip_value reach
// a rule in RuleStep only.
struct RuleConfig {
    std::string name = "sgd";  // sgd | adagrad | rmsprop | adam | adamw
    double learning_rate = 1e-2;
    double momentum = 0;
    bool nesterov = false;
    double weight_decay = 0;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;    // Adagrad's default in torch is 1e-10: the job says which
    double alpha = 0.99;  // RMSprop
    double initial_accumulator_value = 0;  // Adagrad
    double clip_value = 0;                 // 0 = off
};

// Names valid in RuleConfig::name, in the order shown to users.
std::vector<std::string> rule_names();
// torch.optim's defaults of that rule (2.x): learning rate 1e-3 for sgd, adam and adamw, 1e-2 for
// the others; adagrad's eps 1e-10; adamw's weight decay 1e-2. Refused (bad_job): an unknown name.
Result<RuleConfig> rule_defaults(std::string_view name);
// Refused (bad_job): an unknown name (with the nearest valid one), a parameter out of range, one
// that the rule does not have, nesterov without momentum.
Result<std::unique_ptr<const Rule>> make_rule(const RuleConfig& config);

}  // namespace detente
