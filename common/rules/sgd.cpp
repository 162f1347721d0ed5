// Stochastic gradient descent with momentum (Polyak 1964) and Nesterov's variant as torch.optim.SGD
// writes it (Sutskever et al. 2013, without its rescaling):
//   d = g + λ·w;  b ← μ·b + d;  d ← d + μ·b (Nesterov) or b;  w ← w − η·d
// torch starts b at the first d; with dampening 0 a zero b gives the same.
#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/rules/sgd.cpp"
#include "hwy/foreach_target.h"
//
#include "common/rules/makers.h"
#include "common/rules/sweep-inl.h"

#ifndef DETENTE_SGD_SCALARS
#define DETENTE_SGD_SCALARS
namespace detente {
struct SgdScalars {
    float learning_rate;
    float weight_decay;
    float momentum;
    float clip_value;
};
}  // namespace detente
#endif

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {

void sgd_plain(const SgdScalars& s, const RuleArrays& arrays) {
    const Floats minus_rate = all(-s.learning_rate);
    const Floats decay = all(s.weight_decay);
    if (s.weight_decay == 0) {
        sweep<0>([=](Floats w, Floats g) { return fused(minus_rate, g, w); }, s.clip_value, arrays);
    } else {
        sweep<0>([=](Floats w, Floats g) { return fused(minus_rate, fused(decay, w, g), w); },
                 s.clip_value, arrays);
    }
}

void sgd_momentum(const SgdScalars& s, const RuleArrays& arrays) {
    const Floats minus_rate = all(-s.learning_rate);
    const Floats decay = all(s.weight_decay);
    const Floats momentum = all(s.momentum);
    sweep<1>(
        [=](Floats w, Floats g, Floats& velocity) {
            velocity = fused(momentum, velocity, fused(decay, w, g));
            return fused(minus_rate, velocity, w);
        },
        s.clip_value, arrays);
}

void sgd_nesterov(const SgdScalars& s, const RuleArrays& arrays) {
    const Floats minus_rate = all(-s.learning_rate);
    const Floats decay = all(s.weight_decay);
    const Floats momentum = all(s.momentum);
    sweep<1>(
        [=](Floats w, Floats g, Floats& velocity) {
            const Floats slope = fused(decay, w, g);
            velocity = fused(momentum, velocity, slope);
            return fused(minus_rate, fused(momentum, velocity, slope), w);
        },
        s.clip_value, arrays);
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente {
namespace {
HWY_EXPORT(sgd_plain);
HWY_EXPORT(sgd_momentum);
HWY_EXPORT(sgd_nesterov);

class Sgd final : public Rule {
  public:
    explicit Sgd(const RuleConfig& config)
        : momentum_(config.momentum),
          weight_decay_(config.weight_decay),
          nesterov_(config.nesterov) {}

    std::string name() const override { return "sgd"; }
    int slots() const override { return momentum_ == 0 ? 0 : 1; }

    void apply(const RuleStep& step, const RuleArrays& arrays) const override {
        require_shapes(arrays, slots());
        const SgdScalars scalars{static_cast<float>(step.learning_rate),
                                 static_cast<float>(weight_decay_), static_cast<float>(momentum_),
                                 step.clip_value};
        if (momentum_ == 0) {
            HWY_DYNAMIC_DISPATCH(sgd_plain)(scalars, arrays);
        } else if (nesterov_) {
            HWY_DYNAMIC_DISPATCH(sgd_nesterov)(scalars, arrays);
        } else {
            HWY_DYNAMIC_DISPATCH(sgd_momentum)(scalars, arrays);
        }
    }

  private:
    double momentum_;
    double weight_decay_;
    bool nesterov_;
};
}  // namespace

std::unique_ptr<const Rule> make_sgd(const RuleConfig& config) {
    return std::make_unique<Sgd>(config);
}
}  // namespace detente
#endif
