// Carries a gradient from the weights it was computed at to others near them.
// Zheng, Meng, Wang, Chen, Yu, Ma, Liu 2017, "Asynchronous Stochastic Gradient Descent with Delay
// Compensation", eq. 10: g + λ·g⊙g⊙(w − w_then), the diagonal of the Hessian approximated by λ·g⊙g.
#pragma once

namespace detente {

// One coordinate.
inline float delay_compensated(float gradient, double lambda, float now, float then) {
    const double g = gradient;
    const double moved = static_cast<double>(now) - static_cast<double>(then);
    return static_cast<float>(g + lambda * g * g * moved);
}

}  // namespace detente
