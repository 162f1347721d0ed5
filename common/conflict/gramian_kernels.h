// The vectorised loops below gramian.h, compiled once per instruction set and chosen at run time.
// Pure functions of their arguments; the bits are the same for every instruction set.
#pragma once

#include <cstddef>
#include <span>

namespace detente::kernels {

// Adds the inner products of all pairs i <= j to sums[i·n + j], n = rows.size(). No row is null.
void add_products(std::span<const float* const> rows, std::size_t elements, double* sums);

// out = Σ weights[i]·rows[i] in the order given. Requires: at least one row; none is null.
void weigh_rows(std::span<const float> weights, std::span<const float* const> rows, float* out,
                std::size_t elements);

// The instruction set in use ("AVX2", "AVX3" for AVX-512, …), for reports; it moves no bits here.
const char* instruction_set();

}  // namespace detente::kernels
