// AdamW (Loshchilov and Hutter 2019, algorithm 2), as torch.optim.AdamW: the decay acts on the
// weights, w ← (1 − η·λ)·w, then Adam with the bare gradient. The moments are in adam-inl.h.
#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/rules/adamw.cpp"
#include "hwy/foreach_target.h"
//
#include "common/rules/adam-inl.h"
#include "common/rules/makers.h"

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {

void adamw_sweep(const AdamScalars& s, const RuleArrays& arrays) {
    const AdamMoments moments(s);
    const Floats keep = all(s.keep);
    sweep<2>([=](Floats w, Floats g, Floats& mean,
                 Floats& square) { return moments(hn::Mul(keep, w), g, mean, square); },
             s.clip_value, arrays);
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente {
namespace {
HWY_EXPORT(adamw_sweep);

class AdamW final : public Rule {
  public:
    explicit AdamW(const RuleConfig& config) : config_(config) {}

    std::string name() const override { return "adamw"; }
    int slots() const override { return 2; }

    void apply(const RuleStep& step, const RuleArrays& arrays) const override {
        require_shapes(arrays, slots());
        HWY_DYNAMIC_DISPATCH(adamw_sweep)(adam_scalars(config_, step), arrays);
    }

  private:
    RuleConfig config_;
};
}  // namespace

std::unique_ptr<const Rule> make_adamw(const RuleConfig& config) {
    return std::make_unique<AdamW>(config);
}
}  // namespace detente
#endif
