#include "common/conflict/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/conflict/pivoted_cholesky.h"

namespace detente {
namespace {

constexpr int kMostSweeps = 60;
// What is left of a unit vector that is a sum of others.
constexpr double kDependent = 1e-13;

// Rotates rows p and q: (cos, sin).
void rotate(double* p, double* q, std::size_t n, double cos, double sin) {
    for (std::size_t k = 0; k < n; ++k) {
        const double x = p[k];
        const double y = q[k];
        p[k] = cos * x - sin * y;
        q[k] = sin * x + cos * y;
    }
}

}  // namespace

SymmetricEigen::SymmetricEigen(const Gramian& matrix) {
    const std::size_t n = matrix.tasks();
    std::vector<double> a(matrix.entries().begin(), matrix.entries().end());
    std::vector<double> v(n * n, 0.0);
    for (std::size_t i = 0; i < n; ++i) v[i * n + i] = 1;
    const auto sweep = [&] {
        bool turned = false;
        for (std::size_t p = 0; p < n; ++p) {
            for (std::size_t q = p + 1; q < n; ++q) {
                const double off = a[p * n + q];
                const double size =
                    std::sqrt(std::abs(a[p * n + p])) * std::sqrt(std::abs(a[q * n + q]));
                if (std::abs(off) <= std::numeric_limits<double>::epsilon() * size / 4) continue;
                if (std::abs(off) < std::numeric_limits<double>::min()) continue;
                const double theta = (a[q * n + q] - a[p * n + p]) / 2 / off;
                const double t = std::isfinite(theta * theta)
                                     ? (theta < 0 ? -1.0 : 1.0) /
                                           (std::abs(theta) + std::sqrt(theta * theta + 1))
                                     : 1 / (2 * theta);
                const double cos = 1 / std::sqrt(t * t + 1);
                const double sin = t * cos;
                const double shift = t * off;
                const double app = a[p * n + p] - shift;
                const double aqq = a[q * n + q] + shift;
                rotate(&a[p * n], &a[q * n], n, cos, sin);
                for (std::size_t k = 0; k < n; ++k) {
                    a[k * n + p] = a[p * n + k];
                    a[k * n + q] = a[q * n + k];
                }
                a[p * n + p] = app;
                a[q * n + q] = aqq;
                a[p * n + q] = a[q * n + p] = 0;
                rotate(&v[p * n], &v[q * n], n, cos, sin);
                turned = true;
            }
        }
        return turned;
    };
    for (int k = 0; k < kMostSweeps && sweep(); ++k) {
    }
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t x, std::size_t y) { return a[x * n + x] > a[y * n + y]; });
    for (const std::size_t k : order) {
        values_.push_back(a[k * n + k]);
        vectors_.insert(vectors_.end(), v.begin() + static_cast<std::ptrdiff_t>(k * n),
                        v.begin() + static_cast<std::ptrdiff_t>((k + 1) * n));
    }
    const double least = n == 0 ? 0.0
                                : values_.front() * 8 * static_cast<double>(n) *
                                      std::numeric_limits<double>::epsilon();
    while (rank_ < n && values_[rank_] > least && values_[rank_] > 0) ++rank_;
    keep_short_rows(matrix);
}

// A row is no less independent for being short, which the largest value does not know.
void SymmetricEigen::keep_short_rows(const Gramian& matrix) {
    const std::size_t n = values_.size();
    std::size_t rows = 0;
    for (std::size_t i = 0; i < n; ++i) rows += matrix.at(i, i) > 0 ? 1 : 0;
    if (rank_ >= rows) return;
    const PivotedCholesky of_units({matrix.entries().begin(), matrix.entries().end()}, n,
                                   kDependent);
    if (of_units.rank() == rows) {
        while (rank_ < rows && values_[rank_] > 0) ++rank_;
    }
    cut_ = rank_ < of_units.rank();
}

std::vector<double> SymmetricEigen::pseudo_solve(std::span<const double> right) const {
    const std::size_t n = values_.size();
    std::vector<double> out(n, 0.0);
    for (std::size_t k = 0; k < rank_; ++k) {
        double along = 0;
        for (std::size_t i = 0; i < n; ++i) along += vector(k)[i] * right[i];
        for (std::size_t i = 0; i < n; ++i) out[i] += along / values_[k] * vector(k)[i];
    }
    return out;
}

}  // namespace detente
