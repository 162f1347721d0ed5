// One row of a Gramian: the inner products of one vector with others, in one pass over all of them.
// Pure functions; the bits are those of the Gramian's entries (gramian.h), for every instruction
// set, alignment and number of others.
#pragma once

#include <cstddef>
#include <span>

namespace detente::kernels {

// Adds row · others[j] to sums[j]. Requires: as many sums as others; none is null.
void add_row_products(const float* row, std::span<const float* const> others, std::size_t elements,
                      double* sums);

}  // namespace detente::kernels
