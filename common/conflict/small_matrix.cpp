#include "common/conflict/small_matrix.h"

#include <algorithm>
#include <cmath>

namespace detente {

double dot(std::span<const double> a, std::span<const double> b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

std::vector<double> times(const Gramian& g, std::span<const double> v) {
    const std::size_t n = g.tasks();
    std::vector<double> out(n, 0.0);
    for (std::size_t i = 0; i < n; ++i) out[i] = dot(g.entries().subspan(i * n, n), v);
    return out;
}

double squared_length(const Gramian& g, std::span<const double> v) {
    return std::max(0.0, dot(times(g, v), v));
}

double largest_entry(const Gramian& g) {
    double largest = 0;
    for (const double x : g.entries()) largest = std::max(largest, std::abs(x));
    return largest;
}

std::vector<double> lengths_of(const Gramian& g) {
    std::vector<double> lengths(g.tasks());
    for (std::size_t i = 0; i < g.tasks(); ++i) lengths[i] = std::sqrt(std::max(0.0, g.at(i, i)));
    return lengths;
}

Gramian normalised(const Gramian& g) {
    const std::size_t n = g.tasks();
    const std::vector<double> lengths = lengths_of(g);
    Gramian out(n);
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (!(lengths[i] > 0) || !(lengths[j] > 0)) continue;
            out.at(i, j) =
                i == j ? 1.0 : std::clamp(g.at(i, j) / lengths[i] / lengths[j], -1.0, 1.0);
        }
    }
    return out;
}

}  // namespace detente
