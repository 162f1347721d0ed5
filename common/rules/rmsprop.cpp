// RMSprop (Tieleman and Hinton 2012, lecture 6.5), as torch.optim.RMSprop, not centred:
//   d = g + λ·w;  s ← α·s + (1 − α)·d²;  u = d / (√s + ε)
//   w ← w − η·u, or with momentum  b ← μ·b + u;  w ← w − η·b
#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/rules/rmsprop.cpp"
#include "hwy/foreach_target.h"
//
#include "common/rules/makers.h"
#include "common/rules/sweep-inl.h"

#ifndef DETENTE_RMSPROP_SCALARS
#define DETENTE_RMSPROP_SCALARS
namespace detente {
struct RmspropScalars {
    float learning_rate;
    float weight_decay;
    float alpha;
    float one_minus_alpha;
    float eps;
    float momentum;
    float clip_value;
};
}  // namespace detente
#endif

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {

// What plain and momentum form share: the average of squares, and the scaled slope.
struct RmspropSlope {
    Floats decay, alpha, one_minus_alpha, eps;
    explicit RmspropSlope(const RmspropScalars& s)
        : decay(all(s.weight_decay)),
          alpha(all(s.alpha)),
          one_minus_alpha(all(s.one_minus_alpha)),
          eps(all(s.eps)) {}
    HWY_INLINE Floats operator()(Floats w, Floats g, Floats& square) const {
        const Floats slope = fused(decay, w, g);
        square = fused(alpha, square, hn::Mul(hn::Mul(one_minus_alpha, slope), slope));
        return hn::Div(slope, hn::Add(hn::Sqrt(square), eps));
    }
};

void rmsprop_plain(const RmspropScalars& s, const RuleArrays& arrays) {
    const RmspropSlope scaled(s);
    const Floats minus_rate = all(-s.learning_rate);
    sweep<1>([=](Floats w, Floats g,
                 Floats& square) { return fused(minus_rate, scaled(w, g, square), w); },
             s.clip_value, arrays);
}

void rmsprop_momentum(const RmspropScalars& s, const RuleArrays& arrays) {
    const RmspropSlope scaled(s);
    const Floats minus_rate = all(-s.learning_rate);
    const Floats momentum = all(s.momentum);
    sweep<2>(
        [=](Floats w, Floats g, Floats& square, Floats& velocity) {
            velocity = fused(momentum, velocity, scaled(w, g, square));
            return fused(minus_rate, velocity, w);
        },
        s.clip_value, arrays);
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente {
namespace {
HWY_EXPORT(rmsprop_plain);
HWY_EXPORT(rmsprop_momentum);

class Rmsprop final : public Rule {
  public:
    explicit Rmsprop(const RuleConfig& config)
        : alpha_(config.alpha),
          eps_(config.eps),
          momentum_(config.momentum),
          weight_decay_(config.weight_decay) {}

    std::string name() const override { return "rmsprop"; }
    int slots() const override { return momentum_ == 0 ? 1 : 2; }

    void apply(const RuleStep& step, const RuleArrays& arrays) const override {
        require_shapes(arrays, slots());
        const RmspropScalars scalars{static_cast<float>(step.learning_rate),
                                     static_cast<float>(weight_decay_),
                                     static_cast<float>(alpha_),
                                     static_cast<float>(1 - alpha_),
                                     static_cast<float>(eps_),
                                     static_cast<float>(momentum_),
                                     step.clip_value};
        if (momentum_ == 0) {
            HWY_DYNAMIC_DISPATCH(rmsprop_plain)(scalars, arrays);
        } else {
            HWY_DYNAMIC_DISPATCH(rmsprop_momentum)(scalars, arrays);
        }
    }

  private:
    double alpha_;
    double eps_;
    double momentum_;
    double weight_decay_;
};
}  // namespace

std::unique_ptr<const Rule> make_rmsprop(const RuleConfig& config) {
    return std::make_unique<Rmsprop>(config);
}
}  // namespace detente
#endif
