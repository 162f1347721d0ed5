// Inside common/rules only: what the catalog calls, one function per rule, and what the rules
// share. Each maker trusts its configuration; make_rule() has checked it.
#pragma once

#include <cstddef>
#include <memory>

#include "common/invariant.h"
#include "common/rules/rule.h"

namespace detente {

std::unique_ptr<const Rule> make_sgd(const RuleConfig& config);
std::unique_ptr<const Rule> make_adagrad(const RuleConfig& config);
std::unique_ptr<const Rule> make_rmsprop(const RuleConfig& config);
std::unique_ptr<const Rule> make_adam(const RuleConfig& config);
std::unique_ptr<const Rule> make_adamw(const RuleConfig& config);

// The shapes RuleArrays promises, for a rule with that many slots.
inline void require_shapes(const RuleArrays& arrays, int slots) {
    const std::size_t elements = arrays.weights_in.size();
    invariant(arrays.weights_out.size() == elements, "weights out are as long as weights in");
    invariant(arrays.gradient != nullptr || elements == 0, "there is a gradient");
    invariant(slots < 1 || arrays.slot0.size() == elements, "slot 0 is as long as the weights");
    invariant(slots < 2 || arrays.slot1.size() == elements, "slot 1 is as long as the weights");
    const float* in = arrays.weights_in.data();
    const float* out = arrays.weights_out.data();
    invariant(in == out || in + elements <= out || out + elements <= in,
              "weights out are weights in or disjoint from them");
}

}  // namespace detente
