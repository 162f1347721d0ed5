// Cholesky's factor of a small matrix in the order of its rows, and the solves with it. In double,
// in a fixed order, whatever the compiler takes at a time; no storage of its own.
#pragma once

#include <cstddef>

namespace detente {

// Rows of an upper factor lie this far apart, with one column beside it: what lies behind a row's
// end is read and written, and never used.
constexpr std::size_t padded_stride(std::size_t n) { return n + 8; }

// U with UᵀU = M in place of M's upper triangle (`stride` at least padded_stride(n); what is below
// the diagonal is neither read nor kept), and 1/Uᵢᵢ. `beside` is 1 where column n is a y that
// becomes z with Uᵀz = y, or 0. False, and M is spoilt, where a pivot is below `least`: no rank is
// told from that.
bool factor_upper(double* m, std::size_t n, std::size_t beside, std::size_t stride, double least,
                  double* inverse);
// y becomes z with Uᵀz = y.
void solve_lower(const double* u, std::size_t n, std::size_t stride, const double* inverse,
                 double* y);
// y becomes x with Ux = y.
void solve_upper(const double* u, std::size_t n, std::size_t stride, const double* inverse,
                 double* y);

}  // namespace detente
