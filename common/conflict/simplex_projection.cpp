#include "common/conflict/simplex_projection.h"

#include <algorithm>
#include <functional>

#include "common/conflict/small_matrix.h"

namespace detente {

std::vector<double> projected_on_simplex(std::span<const double> values) {
    // Measured from the largest, which is always in the support: no digits are lost to an offset.
    const double top = *std::max_element(values.begin(), values.end());
    std::vector<double> sorted(values.begin(), values.end());
    for (double& x : sorted) x -= top;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    double sum = 0;
    double threshold = 0;
    for (std::size_t k = 0; k < sorted.size(); ++k) {
        sum += sorted[k];
        const double candidate = (sum - 1) / static_cast<double>(k + 1);
        if (sorted[k] - candidate > 0) threshold = candidate;
    }
    std::vector<double> out(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        out[i] = std::max(0.0, values[i] - top - threshold);
    }
    return out;
}

std::vector<double> projected_step(const Gramian& m, std::span<const double> w, double step,
                                   double rho) {
    std::vector<double> next = times(m, w);
    for (std::size_t i = 0; i < next.size(); ++i) next[i] = w[i] - step * (next[i] + rho * w[i]);
    return projected_on_simplex(next);
}

}  // namespace detente
