// What methods keep per task and coordinate, beside the gradients: one pass each, by whoever holds
// the gradients (the worker per block; `detente aggregate` for whole rows).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>

#include "common/conflict/aggregator.h"

namespace detente {

// Reads a gradient's element at any address.
template <class Real>
Real element_at(const Real* row, std::size_t e) {
    Real value;
    std::memcpy(&value, static_cast<const void*>(row + e), sizeof(value));
    return value;
}

// Of the task's row, times the scale it is given.
template <class Real>
double element_of(const CoordinateRows<Real>& block, std::size_t task, std::size_t e) {
    const auto value = static_cast<double>(element_at(block.rows[task], e));
    return block.scales.empty() ? value : value * block.scales[task];
}

// y ← keep·y + add·g. A gradient that is not there (nullptr) is zero.
template <class Real>
void take_into_average(std::span<Real> y, const Real* g, double keep, double add) {
    for (std::size_t e = 0; e < y.size(); ++e) {
        const double kept = keep * static_cast<double>(y[e]);
        y[e] = static_cast<Real>(g == nullptr ? kept
                                              : kept + add * static_cast<double>(element_at(g, e)));
    }
}

// squares ← squares + g²; gᵀ·diag(squares)^(−½)·g, where 0/0 is 0 (He et al. 2024, equation 6).
template <class Real>
double take_into_squares(std::span<Real> squares, const Real* g) {
    if (g == nullptr) return 0;
    double excess = 0;
    for (std::size_t e = 0; e < squares.size(); ++e) {
        const auto value = static_cast<double>(element_at(g, e));
        const double square = value * value;
        const double sum = static_cast<double>(squares[e]) + square;
        squares[e] = static_cast<Real>(sum);
        if (square > 0) excess += square / std::sqrt(sum);
    }
    return excess;
}

}  // namespace detente
