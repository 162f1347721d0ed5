// The formula Adam and AdamW share, per instruction set (see sweep-inl.h). With t the number of
// updates, this one included (Kingma and Ba 2015, algorithm 1, as torch.optim orders it):
//   m ← β₁·m + (1 − β₁)·d;  v ← β₂·v + (1 − β₂)·d²
//   w ← w − η/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
#if defined(DETENTE_COMMON_RULES_ADAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DETENTE_COMMON_RULES_ADAM_INL_H_
#undef DETENTE_COMMON_RULES_ADAM_INL_H_
#else
#define DETENTE_COMMON_RULES_ADAM_INL_H_
#endif

#include "common/rules/adam_scalars.h"
#include "common/rules/sweep-inl.h"

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {

struct AdamMoments {
    Floats beta1, one_minus_beta1, beta2, one_minus_beta2, eps, root_correction, minus_step;
    explicit AdamMoments(const AdamScalars& s)
        : beta1(all(s.beta1)),
          one_minus_beta1(all(s.one_minus_beta1)),
          beta2(all(s.beta2)),
          one_minus_beta2(all(s.one_minus_beta2)),
          eps(all(s.eps)),
          root_correction(all(s.root_correction)),
          minus_step(all(-s.step_size)) {}
    // New weights from weights `w` and slope `d`.
    HWY_INLINE Floats operator()(Floats w, Floats d, Floats& mean, Floats& square) const {
        mean = fused(beta1, mean, hn::Mul(one_minus_beta1, d));
        square = fused(beta2, square, hn::Mul(hn::Mul(one_minus_beta2, d), d));
        const Floats divisor = fused(hn::Sqrt(square), root_correction, eps);
        return fused(minus_step, hn::Div(mean, divisor), w);
    }
};

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();
#endif
