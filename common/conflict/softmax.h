// Softmax of a handful of values, shifted by the largest so that nothing overflows.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace detente {

// Requires: at least one value, all finite.
inline std::vector<double> softmax(std::span<const double> values) {
    const double top = *std::max_element(values.begin(), values.end());
    std::vector<double> out;
    double sum = 0;
    for (const double x : values) {
        out.push_back(std::exp(x - top));
        sum += out.back();
    }
    for (double& x : out) x /= sum;
    return out;
}

}  // namespace detente
