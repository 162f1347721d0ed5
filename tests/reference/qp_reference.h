// Quadratic programs of a handful of variables, solved by trying every active set: slow (2ᵀ),
// plain, and with no pivoting rule to get wrong.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "common/conflict/gramian.h"

namespace detente::reference {

// Solves A·x = b (n×n, row-major) by elimination with full row pivoting; nothing if singular.
inline std::optional<std::vector<double>> solve_linear(std::vector<double> a,
                                                       std::vector<double> b) {
    const std::size_t n = b.size();
    for (std::size_t k = 0; k < n; ++k) {
        std::size_t pivot = k;
        for (std::size_t i = k + 1; i < n; ++i) {
            if (std::abs(a[i * n + k]) > std::abs(a[pivot * n + k])) pivot = i;
        }
        if (std::abs(a[pivot * n + k]) < 1e-13) return std::nullopt;
        for (std::size_t j = 0; j < n; ++j) std::swap(a[k * n + j], a[pivot * n + j]);
        std::swap(b[k], b[pivot]);
        for (std::size_t i = k + 1; i < n; ++i) {
            const double factor = a[i * n + k] / a[k * n + k];
            for (std::size_t j = k; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
            b[i] -= factor * b[k];
        }
    }
    for (std::size_t i = n; i-- > 0;) {
        for (std::size_t j = i + 1; j < n; ++j) b[i] -= a[i * n + j] * b[j];
        b[i] /= a[i * n + i];
    }
    return b;
}

inline double quadratic(const Gramian& g, const std::vector<double>& v) {
    double sum = 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
        for (std::size_t j = 0; j < v.size(); ++j) sum += v[i] * g.at(i, j) * v[j];
    }
    return sum;
}

// argmin of vᵀGv over v ⪰ lower, with (if `sum_to_one`) Σv = 1. Every least point that is a corner
// of its face has a support on which the stationarity equations are regular, so the least of all
// feasible stationary points is the answer.
inline std::vector<double> least_quadratic(const Gramian& g, const std::vector<double>& lower,
                                           bool sum_to_one) {
    const std::size_t n = g.tasks();
    std::vector<double> best;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t mask = 0; mask < (std::size_t{1} << n); ++mask) {
        std::vector<std::size_t> free;
        std::vector<double> v = lower;
        for (std::size_t i = 0; i < n; ++i) {
            if ((mask >> i & 1U) != 0) free.push_back(i);
        }
        const std::size_t m = free.size() + (sum_to_one ? 1 : 0);
        std::vector<double> a(m * m, 0.0);
        std::vector<double> b(m, 0.0);
        double fixed = 0;
        for (std::size_t j = 0; j < n; ++j) fixed += (mask >> j & 1U) != 0 ? 0.0 : lower[j];
        for (std::size_t i = 0; i < free.size(); ++i) {
            for (std::size_t j = 0; j < free.size(); ++j) a[i * m + j] = g.at(free[i], free[j]);
            for (std::size_t j = 0; j < n; ++j) {
                if ((mask >> j & 1U) == 0) b[i] -= g.at(free[i], j) * lower[j];
            }
            if (sum_to_one) {
                a[i * m + m - 1] = 1;
                a[(m - 1) * m + i] = 1;
            }
        }
        if (sum_to_one) b[m - 1] = 1 - fixed;
        if (sum_to_one && free.empty()) continue;
        const auto solution = solve_linear(a, b);
        if (!solution) continue;
        bool feasible = true;
        for (std::size_t i = 0; i < free.size(); ++i) {
            v[free[i]] = (*solution)[i];
            feasible = feasible && v[free[i]] >= lower[free[i]] - 1e-12;
        }
        const double value = quadratic(g, v);
        if (feasible && value < least) {
            least = value;
            best = v;
        }
    }
    return best;
}

// MGDA's weights.
inline std::vector<double> least_on_simplex(const Gramian& g) {
    return least_quadratic(g, std::vector<double>(g.tasks(), 0.0), true);
}

// UPGrad's weights with unit preferences (Quinton 2024): Σᵢ argmin over v ⪰ eᵢ of vᵀGv.
inline std::vector<double> upgrad_weights(const Gramian& g) {
    std::vector<double> total(g.tasks(), 0.0);
    for (std::size_t i = 0; i < g.tasks(); ++i) {
        std::vector<double> lower(g.tasks(), 0.0);
        lower[i] = 1;
        const std::vector<double> v = least_quadratic(g, lower, false);
        for (std::size_t k = 0; k < v.size(); ++k) total[k] += v[k];
    }
    return total;
}

}  // namespace detente::reference
