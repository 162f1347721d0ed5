// Adam (Kingma and Ba 2015, algorithm 1), as torch.optim.Adam: weight decay is added to the
// gradient, d = g + λ·w. The moments are in adam-inl.h.
#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/rules/adam.cpp"
#include "hwy/foreach_target.h"
//
#include "common/rules/adam-inl.h"
#include "common/rules/makers.h"

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {

void adam_sweep(const AdamScalars& s, const RuleArrays& arrays) {
    const AdamMoments moments(s);
    const Floats decay = all(s.weight_decay);
    sweep<2>([=](Floats w, Floats g, Floats& mean,
                 Floats& square) { return moments(w, fused(decay, w, g), mean, square); },
             s.clip_value, arrays);
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente {
namespace {
HWY_EXPORT(adam_sweep);

class Adam final : public Rule {
  public:
    explicit Adam(const RuleConfig& config) : config_(config) {}

    std::string name() const override { return "adam"; }
    int slots() const override { return 2; }

    void apply(const RuleStep& step, const RuleArrays& arrays) const override {
        require_shapes(arrays, slots());
        HWY_DYNAMIC_DISPATCH(adam_sweep)(adam_scalars(config_, step), arrays);
    }

  private:
    RuleConfig config_;
};
}  // namespace

std::unique_ptr<const Rule> make_adam(const RuleConfig& config) {
    return std::make_unique<Adam>(config);
}
}  // namespace detente
#endif
