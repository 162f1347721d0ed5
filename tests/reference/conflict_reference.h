// The conflict methods written plainly, in double, on the gradients themselves: what the fast paths
// are checked against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/random.h"

namespace detente::reference {

using Row = std::vector<double>;
using Rows = std::vector<Row>;  // J: one gradient per task

inline double dot(const Row& a, const Row& b) {
    double sum = 0;
    for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
    return sum;
}

inline Gramian gramian_of(const Rows& rows) {
    Gramian g(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t j = 0; j < rows.size(); ++j) g.at(i, j) = dot(rows[i], rows[j]);
    }
    return g;
}

// wᵀJ.
inline Row combined(const std::vector<double>& weights, const Rows& rows) {
    Row out(rows.empty() ? 0 : rows[0].size(), 0.0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t k = 0; k < out.size(); ++k) out[k] += weights[i] * rows[i][k];
    }
    return out;
}

// Gradient surgery as the paper's algorithm 1 writes it, on vectors. order[i]: whom i visits.
inline Row pcgrad(const Rows& rows, const std::vector<std::vector<std::uint32_t>>& order) {
    Row total(rows[0].size(), 0.0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        Row g = rows[i];
        for (const std::uint32_t j : order[i]) {
            if (j == i) continue;
            const double along = dot(g, rows[j]);
            if (along >= 0) continue;
            const double square = dot(rows[j], rows[j]);
            for (std::size_t k = 0; k < g.size(); ++k) g[k] -= along / square * rows[j][k];
        }
        for (std::size_t k = 0; k < g.size(); ++k) total[k] += g[k];
    }
    return total;
}

// Rows of normal draws; rank at most `rank` (mixtures of that many), each row times its scale.
inline Rows random_rows(Random& random, std::size_t tasks, std::size_t elements, std::size_t rank,
                        const std::vector<double>& scales = {}) {
    Rows basis(rank, Row(elements));
    for (Row& row : basis) {
        for (double& x : row) x = random.normal();
    }
    Rows rows(tasks, Row(elements, 0.0));
    for (std::size_t i = 0; i < tasks; ++i) {
        for (std::size_t b = 0; b < rank; ++b) {
            const double share = rank >= tasks ? (b == i ? 1.0 : 0.0) : random.normal();
            for (std::size_t k = 0; k < elements; ++k) rows[i][k] += share * basis[b][k];
        }
        for (double& x : rows[i]) x *= scales.empty() ? 1.0 : scales[i];
    }
    return rows;
}

}  // namespace detente::reference
