// Euclidean projection onto the simplex { w ⪰ 0, Σw = 1 }: Held, Wolfe and Crowder, "Validation of
// subgradient optimization" (1974); exact, by sorting.
#pragma once

#include <span>
#include <vector>

namespace detente {

// Requires: at least one value, all finite.
std::vector<double> projected_on_simplex(std::span<const double> values);

}  // namespace detente
