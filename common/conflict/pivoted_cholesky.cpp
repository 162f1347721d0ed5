#include "common/conflict/pivoted_cholesky.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/conflict/triangular.h"

namespace detente {

namespace {

// Pivots from here on leave no doubt of the rank.
constexpr double kWellApart = 1e-8;

}  // namespace

PivotedCholesky::PivotedCholesky(const std::vector<double>& matrix, std::size_t n, double tolerance)
    : n_(n),
      stride_(padded_stride(n)),
      factor_(n * stride_, 0.0),
      inverse_(n),
      scale_(n),
      order_(n) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    for (std::size_t i = 0; i < n; ++i) {
        const double own = matrix[i * n + i];
        scale_[i] = own > 0 ? 1.0 / std::sqrt(own) : 0.0;
    }
    if (!factor_in_order(matrix)) factor_by_pivots(matrix, tolerance);
}

bool PivotedCholesky::factor_in_order(const std::vector<double>& matrix) {
    for (std::size_t i = 0; i < n_; ++i) {
        if (scale_[i] == 0) return false;
        for (std::size_t j = i; j < n_; ++j) {
            at(i, j) = matrix[i * n_ + j] * (scale_[i] * scale_[j]);
        }
    }
    if (!factor_upper(factor_.data(), n_, 0, stride_, kWellApart, inverse_.data())) return false;
    rank_ = n_;
    well_apart_ = true;
    return true;
}

void PivotedCholesky::factor_by_pivots(const std::vector<double>& matrix, double tolerance) {
    for (std::size_t i = 0; i < n_; ++i) {
        for (std::size_t j = 0; j < n_; ++j) {
            at(i, j) = matrix[i * n_ + j] * (scale_[i] * scale_[j]);
        }
    }
    for (std::size_t k = 0; k < n_; ++k) {
        std::size_t pivot = k;
        for (std::size_t i = k + 1; i < n_; ++i) {
            if (at(i, i) > at(pivot, pivot)) pivot = i;
        }
        if (!(at(pivot, pivot) > tolerance)) break;
        if (pivot != k) {
            for (std::size_t j = 0; j < n_; ++j) std::swap(at(k, j), at(pivot, j));
            for (std::size_t i = 0; i < n_; ++i) std::swap(at(i, k), at(i, pivot));
            std::swap(order_[k], order_[pivot]);
        }
        const double root = std::sqrt(at(k, k));
        at(k, k) = root;
        inverse_[k] = 1 / root;
        // Written into a row the column lies together: the compiler takes several at a time.
        for (std::size_t i = k + 1; i < n_; ++i) at(k, i) = at(i, k) /= root;
        const double* column = factor_.data() + k * stride_;
        for (std::size_t i = k + 1; i < n_; ++i) {
            double* row = factor_.data() + i * stride_;
            const double by = column[i];
            for (std::size_t j = k + 1; j < n_; ++j) row[j] -= by * column[j];
        }
        rank_ = k + 1;
    }
}

std::vector<double> PivotedCholesky::solve(std::span<const double> right) const {
    std::vector<double> y(rank_);
    for (std::size_t i = 0; i < rank_; ++i) y[i] = right[order_[i]] * scale_[order_[i]];
    solve_lower(factor_.data(), rank_, stride_, inverse_.data(), y.data());
    solve_upper(factor_.data(), rank_, stride_, inverse_.data(), y.data());
    std::vector<double> x(n_, 0.0);
    for (std::size_t i = 0; i < rank_; ++i) x[order_[i]] = y[i] * scale_[order_[i]];
    return x;
}

std::vector<double> PivotedCholesky::null_direction(std::size_t k) const {
    const auto row =
        static_cast<std::size_t>(std::find(order_.begin(), order_.end(), k) - order_.begin());
    std::vector<double> x(n_, 0.0);
    x[k] = 1;
    if (scale_[k] == 0) return x;
    // Row k of the factor is L₂₁; the direction is −M₁₁⁻¹M₁ₖ = −L₁₁⁻ᵀL₂₁ᵀ, scaled back.
    std::vector<double> y(rank_);
    for (std::size_t i = rank_; i-- > 0;) {
        y[i] = -at(row, i);
        for (std::size_t j = i + 1; j < rank_; ++j) y[i] -= at(i, j) * y[j];
        y[i] /= at(i, i);
        x[order_[i]] = y[i] * scale_[order_[i]] / scale_[k];
    }
    return x;
}

}  // namespace detente
