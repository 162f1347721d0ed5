// Products of T×T matrices and vectors of T, in double, in a fixed order.
#pragma once

#include <span>
#include <vector>

#include "common/conflict/gramian.h"

namespace detente {

// G·v.
std::vector<double> times(const Gramian& g, std::span<const double> v);
double dot(std::span<const double> a, std::span<const double> b);
// vᵀGv, at least 0: rounding may make the Gramian of dependent rows slightly indefinite.
double squared_length(const Gramian& g, std::span<const double> v);
double largest_entry(const Gramian& g);  // max|G|
// ‖gᵢ‖.
std::vector<double> lengths_of(const Gramian& g);
// G of the normalised rows, with exact ones on the diagonal; rows and columns of zero rows are
// zero.
Gramian normalised(const Gramian& g);

}  // namespace detente
