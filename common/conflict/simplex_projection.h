// Euclidean projection onto the simplex { w ⪰ 0, Σw = 1 }: Held, Wolfe and Crowder, "Validation of
// subgradient optimization" (1974); exact, by sorting.
#pragma once

#include <span>
#include <vector>

#include "common/conflict/gramian.h"

namespace detente {

// Requires: at least one value, all finite.
std::vector<double> projected_on_simplex(std::span<const double> values);
// One projected gradient step on ½wᵀ(M + ρI)w from w: Π(w − step·(M + ρI)·w). M need not be
// symmetric.
std::vector<double> projected_step(const Gramian& m, std::span<const double> w, double step,
                                   double rho);

}  // namespace detente
