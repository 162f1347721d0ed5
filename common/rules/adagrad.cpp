// Adagrad (Duchi, Hazan, Singer 2011, diagonal form, eq. 1), as torch.optim.Adagrad without
// learning-rate decay (schedules do that):
//   d = g + λ·w;  s ← s + d²;  w ← w − η·d / (√s + ε)
#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/rules/adagrad.cpp"
#include "hwy/foreach_target.h"
//
#include "common/rules/makers.h"
#include "common/rules/sweep-inl.h"

#ifndef DETENTE_ADAGRAD_SCALARS
#define DETENTE_ADAGRAD_SCALARS
namespace detente {
struct AdagradScalars {
    float learning_rate;
    float weight_decay;
    float eps;
    float clip_value;
};
}  // namespace detente
#endif

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {

void adagrad_sweep(const AdagradScalars& s, const RuleArrays& arrays) {
    const Floats minus_rate = all(-s.learning_rate);
    const Floats decay = all(s.weight_decay);
    const Floats eps = all(s.eps);
    sweep<1>(
        [=](Floats w, Floats g, Floats& sum) {
            const Floats slope = fused(decay, w, g);
            sum = fused(slope, slope, sum);
            return fused(minus_rate, hn::Div(slope, hn::Add(hn::Sqrt(sum), eps)), w);
        },
        s.clip_value, arrays);
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente {
namespace {
HWY_EXPORT(adagrad_sweep);

class Adagrad final : public Rule {
  public:
    explicit Adagrad(const RuleConfig& config)
        : weight_decay_(config.weight_decay),
          eps_(config.eps),
          initial_(static_cast<float>(config.initial_accumulator_value)) {}

    std::string name() const override { return "adagrad"; }
    int slots() const override { return 1; }
    float initial_slot(int /*slot*/) const override { return initial_; }

    void apply(const RuleStep& step, const RuleArrays& arrays) const override {
        require_shapes(arrays, slots());
        const AdagradScalars scalars{static_cast<float>(step.learning_rate),
                                     static_cast<float>(weight_decay_), static_cast<float>(eps_),
                                     step.clip_value};
        HWY_DYNAMIC_DISPATCH(adagrad_sweep)(scalars, arrays);
    }

  private:
    double weight_decay_;
    double eps_;
    float initial_;
};
}  // namespace

std::unique_ptr<const Rule> make_adagrad(const RuleConfig& config) {
    return std::make_unique<Adagrad>(config);
}
}  // namespace detente
#endif
