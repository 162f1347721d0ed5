// What Gramian-only methods solve, once more, slowly and by other roads: on the gradients
// themselves, by bisection, projected gradients and limits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "tests/reference/conflict_reference.h"
#include "tests/reference/qp_reference.h"

namespace detente::reference {

// Sorted so that the threshold can be found by bisection: Σ max(0, xᵢ − τ) = 1.
inline std::vector<double> project_on_simplex(const std::vector<double>& x) {
    double low = *std::min_element(x.begin(), x.end()) - 1;
    double high = *std::max_element(x.begin(), x.end());
    for (int k = 0; k < 200; ++k) {
        const double middle = (low + high) / 2;
        double sum = 0;
        for (const double value : x) sum += std::max(0.0, value - middle);
        (sum > 1 ? low : high) = middle;
    }
    std::vector<double> out;
    for (const double value : x) out.push_back(std::max(0.0, value - (low + high) / 2));
    return out;
}

// CAGrad's objective at w, on vectors.
inline double cagrad_objective(const Rows& rows, const std::vector<double>& w, double c) {
    const Row mean = combined(std::vector<double>(rows.size(), 1.0 / double(rows.size())), rows);
    const Row g = combined(w, rows);
    return dot(mean, g) + c * std::sqrt(dot(mean, mean)) * std::sqrt(dot(g, g));
}

// Its least over the simplex, by projected gradient steps that shrink when they do not help.
inline std::vector<double> cagrad_weights(const Rows& rows, double c) {
    const std::size_t n = rows.size();
    const Row mean = combined(std::vector<double>(n, 1.0 / double(n)), rows);
    const double radius = c * std::sqrt(dot(mean, mean));
    std::vector<double> w(n, 1.0 / double(n));
    double step = 1;
    double value = cagrad_objective(rows, w, c);
    for (int k = 0; k < 200000 && step > 1e-18; ++k) {
        const Row g = combined(w, rows);
        const double length = std::max(1e-300, std::sqrt(dot(g, g)));
        std::vector<double> moved(n);
        for (std::size_t i = 0; i < n; ++i) {
            moved[i] = w[i] - step * (dot(rows[i], mean) + radius * dot(rows[i], g) / length);
        }
        moved = project_on_simplex(moved);
        const double now = cagrad_objective(rows, moved, c);
        if (now < value) {
            value = now;
            w = moved;
            step *= 1.5;
        } else {
            step /= 2;
        }
    }
    return w;
}

// f's least over [0, 1], for f convex, by golden section: near 0 to any order of magnitude.
template <class Function>
double golden(const Function& f) {
    const double share = (std::sqrt(5.0) - 1) / 2;
    double low = 0;
    double high = 1;
    double left = high - share * (high - low);
    double right = low + share * (high - low);
    double at_left = f(left);
    double at_right = f(right);
    for (int k = 0; k < 120; ++k) {
        if (at_left <= at_right) {
            high = right;
            right = left;
            at_right = at_left;
            left = high - share * (high - low);
            at_left = f(left);
        } else {
            low = left;
            left = right;
            at_left = at_right;
            right = low + share * (high - low);
            at_right = f(right);
        }
    }
    const double middle = (low + high) / 2;
    double best = middle;
    for (const double corner : {0.0, 1.0}) {
        if (f(corner) < f(best)) best = corner;
    }
    return best;
}

// The least of CAGrad's objective for three rows, the longest first, and where it is.
inline std::pair<double, std::vector<double>> cagrad_search(const Rows& rows, double c) {
    const auto point = [](double u, double v) {
        return std::vector<double>{u, (1 - u) * v, (1 - u) * (1 - v)};
    };
    const auto inner = [&](double u) {
        return golden([&](double v) { return cagrad_objective(rows, point(u, v), c); });
    };
    const double u =
        golden([&](double x) { return cagrad_objective(rows, point(x, inner(x)), c); });
    const std::vector<double> w = point(u, inner(u));
    return {cagrad_objective(rows, w, c), w};
}

// The positive solution of Gα = α^(−1/a), coordinate by coordinate (each one's equation has one
// root, found by bisection), round and round: descent on a convex potential.
inline std::vector<double> fair_weights(const Gramian& g, double a) {
    const std::size_t n = g.tasks();
    std::vector<double> w(n);
    for (std::size_t i = 0; i < n; ++i) w[i] = std::pow(g.at(i, i), -a / (1 + a));
    for (int round = 0; round < 3000; ++round) {
        double moved = 0;
        for (std::size_t i = 0; i < n; ++i) {
            double others = 0;
            for (std::size_t j = 0; j < n; ++j) others += j == i ? 0.0 : g.at(i, j) * w[j];
            double low = std::log(w[i]) - 20;
            double high = std::log(w[i]) + 20;
            for (int k = 0; k < 100; ++k) {
                const double x = std::exp((low + high) / 2);
                const double slope = g.at(i, i) * x + others - std::pow(x, -1 / a);
                (slope > 0 ? high : low) = (low + high) / 2;
            }
            const double x = std::exp((low + high) / 2);
            moved = std::max(moved, std::abs(x / w[i] - 1));
            w[i] = x;
        }
        if (moved < 1e-14) break;
    }
    return w;
}

using Matrix = std::vector<std::vector<double>>;

inline Matrix inverse(const Matrix& m) {
    const std::size_t n = m.size();
    Matrix out(n, std::vector<double>(n));
    std::vector<double> flat;
    for (const auto& row : m) flat.insert(flat.end(), row.begin(), row.end());
    for (std::size_t k = 0; k < n; ++k) {
        std::vector<double> unit(n, 0.0);
        unit[k] = 1;
        const auto column = solve_linear(flat, unit);
        for (std::size_t i = 0; i < n; ++i) out[i][k] = (*column)[i];
    }
    return out;
}

// M^(−½) by Denman and Beavers' iteration (1976).
inline Matrix inverse_root(const Matrix& m) {
    const std::size_t n = m.size();
    Matrix y = m;
    Matrix z(n, std::vector<double>(n, 0.0));
    for (std::size_t i = 0; i < n; ++i) z[i][i] = 1;
    for (int k = 0; k < 60; ++k) {
        const Matrix y_inverse = inverse(y);
        const Matrix z_inverse = inverse(z);
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) {
                y[i][j] = (y[i][j] + z_inverse[i][j]) / 2;
                z[i][j] = (z[i][j] + y_inverse[i][j]) / 2;
            }
        }
    }
    return z;
}

// How many eigenvalues of G lie below x: by the signs of the pivots of G − x·1 (Sylvester).
inline std::size_t eigenvalues_below(const Gramian& g, double x) {
    const std::size_t n = g.tasks();
    std::vector<double> a(g.entries().begin(), g.entries().end());
    for (std::size_t i = 0; i < n; ++i) a[i * n + i] -= x;
    std::size_t below = 0;
    for (std::size_t k = 0; k < n; ++k) {
        const double pivot = a[k * n + k];
        if (pivot < 0) ++below;
        for (std::size_t i = k + 1; i < n; ++i) {
            const double factor = a[i * n + k] / pivot;
            for (std::size_t j = k; j < n; ++j) a[i * n + j] -= factor * a[k * n + j];
        }
    }
    return below;
}

// The k-th smallest eigenvalue, from 0, by bisection.
inline double eigenvalue(const Gramian& g, std::size_t k) {
    double low = 0;
    double high = 0;
    for (std::size_t i = 0; i < g.tasks(); ++i) high += g.at(i, i);
    high *= 1.01;
    for (int step = 0; step < 200; ++step) {
        const double middle = (low + high) / 2;
        (eigenvalues_below(g, middle) > k ? high : low) = middle;
    }
    return (low + high) / 2;
}

// pinv(U)·1 as the limit of ridge regression, Uᵀ(UUᵀ + εI)⁻¹·1, and ConFIG's result with it.
inline Row config(const Rows& rows, double ridge) {
    Rows unit = rows;
    for (Row& row : unit) {
        const double length = std::sqrt(dot(row, row));
        for (double& x : row) x /= length;
    }
    Gramian g = gramian_of(unit);
    for (std::size_t i = 0; i < rows.size(); ++i) g.at(i, i) += ridge;
    const auto v = solve_linear({g.entries().begin(), g.entries().end()},
                                std::vector<double>(rows.size(), 1.0));
    Row u = combined(*v, unit);
    const double length = std::sqrt(dot(u, u));
    double gains = 0;
    for (double& x : u) x /= length;
    for (const Row& row : rows) gains += dot(row, u);
    for (double& x : u) x *= gains;
    return u;
}

}  // namespace detente::reference
