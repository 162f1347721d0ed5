#include "common/conflict/triangular.h"

#include <algorithm>
#include <cmath>

namespace detente {
namespace {

// Columns that stay in registers while the rows above are taken off.
constexpr std::size_t kTile = 8;
static_assert(padded_stride(0) >= kTile);
// Sums side by side, each in its own order.
constexpr std::size_t kSums = 4;

}  // namespace

bool factor_upper(double* m, std::size_t n, std::size_t beside, std::size_t stride, double least,
                  double* inverse) {
    const std::size_t columns = n + beside;
    for (std::size_t i = 0; i < n; ++i) {
        double* own = m + i * stride;
        for (std::size_t first = i; first < columns; first += kTile) {
            double rest[kTile];
            std::copy_n(own + first, kTile, rest);
            for (std::size_t k = 0; k < i; ++k) {
                const double* above = m + k * stride;
                const double by = above[i];
                for (std::size_t l = 0; l < kTile; ++l) rest[l] -= by * above[first + l];
            }
            std::copy_n(rest, kTile, own + first);
        }
        if (!(own[i] >= least)) return false;
        const double root = std::sqrt(own[i]);
        if (!std::isfinite(root)) return false;
        inverse[i] = 1 / root;
        own[i] = root;
        for (std::size_t j = i + 1; j < columns; ++j) own[j] *= inverse[i];
    }
    return true;
}

void solve_lower(const double* u, std::size_t n, std::size_t stride, const double* inverse,
                 double* __restrict y) {
    for (std::size_t k = 0; k < n; ++k) {
        const double* row = u + k * stride;
        const double known = y[k] *= inverse[k];
        for (std::size_t i = k + 1; i < n; ++i) y[i] -= row[i] * known;
    }
}

void solve_upper(const double* u, std::size_t n, std::size_t stride, const double* inverse,
                 double* __restrict y) {
    for (std::size_t i = n; i-- > 0;) {
        const double* row = u + i * stride;
        // What was found last comes last: all else need not wait for it.
        double sums[kSums] = {};
        std::size_t j = n;
        for (; j >= i + 1 + kSums; j -= kSums) {
            for (std::size_t l = 0; l < kSums; ++l)
                sums[l] += row[j - kSums + l] * y[j - kSums + l];
        }
        double last = 0;
        for (; j > i + 1; --j) last += row[j - 1] * y[j - 1];
        y[i] = (y[i] - ((sums[0] + sums[1]) + (sums[2] + sums[3])) - last) * inverse[i];
    }
}

}  // namespace detente
