#include "common/conflict/pivoted_cholesky.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace detente {

PivotedCholesky::PivotedCholesky(std::vector<double> matrix, std::size_t n, double tolerance)
    : n_(n), factor_(std::move(matrix)), scale_(n), order_(n) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    for (std::size_t i = 0; i < n; ++i) scale_[i] = at(i, i) > 0 ? 1.0 / std::sqrt(at(i, i)) : 0.0;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) at(i, j) *= scale_[i] * scale_[j];
    }
    for (std::size_t k = 0; k < n; ++k) {
        std::size_t pivot = k;
        for (std::size_t i = k + 1; i < n; ++i) {
            if (at(i, i) > at(pivot, pivot)) pivot = i;
        }
        if (!(at(pivot, pivot) > tolerance)) break;
        if (pivot != k) {
            for (std::size_t j = 0; j < n; ++j) std::swap(at(k, j), at(pivot, j));
            for (std::size_t i = 0; i < n; ++i) std::swap(at(i, k), at(i, pivot));
            std::swap(order_[k], order_[pivot]);
        }
        const double root = std::sqrt(at(k, k));
        at(k, k) = root;
        // Written into a row the column lies together: the compiler takes several at a time, here
        // and in solve().
        for (std::size_t i = k + 1; i < n; ++i) at(k, i) = at(i, k) /= root;
        const double* column = factor_.data() + k * n_;
        for (std::size_t i = k + 1; i < n; ++i) {
            double* row = factor_.data() + i * n_;
            const double by = column[i];
            for (std::size_t j = k + 1; j < n; ++j) row[j] -= by * column[j];
        }
        rank_ = k + 1;
    }
}

std::vector<double> PivotedCholesky::solve(std::span<const double> right) const {
    std::vector<double> y(rank_);
    for (std::size_t i = 0; i < rank_; ++i) y[i] = right[order_[i]] * scale_[order_[i]];
    for (std::size_t j = 0; j < rank_; ++j) {
        const double* column = factor_.data() + j * n_;
        const double known = y[j] /= column[j];
        for (std::size_t i = j + 1; i < rank_; ++i) y[i] -= column[i] * known;
    }
    std::vector<double> x(n_, 0.0);
    for (std::size_t i = rank_; i-- > 0;) {
        for (std::size_t j = i + 1; j < rank_; ++j) y[i] -= at(j, i) * y[j];
        y[i] /= at(i, i);
        x[order_[i]] = y[i] * scale_[order_[i]];
    }
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
        for (std::size_t j = i + 1; j < rank_; ++j) y[i] -= at(j, i) * y[j];
        y[i] /= at(i, i);
        x[order_[i]] = y[i] * scale_[order_[i]] / scale_[k];
    }
    return x;
}

}  // namespace detente
