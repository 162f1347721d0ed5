#include "common/conflict/small_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace detente {

double dot(std::span<const double> a, std::span<const double> b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

std::vector<double> times(const Gramian& g, std::span<const double> v) {
    const std::size_t n = g.tasks();
    std::vector<double> out(n, 0.0);
    // Several rows side by side, each summed in its order: one alone waits for its own sum.
    constexpr std::size_t kBeside = 8;
    const double* rows = g.entries().data();
    std::size_t i = 0;
    for (; i + kBeside <= n; i += kBeside, rows += kBeside * n) {
        double sums[kBeside] = {};
        for (std::size_t j = 0; j < n; ++j) {
            for (std::size_t l = 0; l < kBeside; ++l) sums[l] += rows[l * n + j] * v[j];
        }
        std::copy_n(sums, kBeside, out.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (; i < n; ++i, rows += n) out[i] = dot({rows, n}, v);
    return out;
}

double squared_length(const Gramian& g, std::span<const double> v) {
    return std::max(0.0, dot(times(g, v), v));
}

double largest_entry(const Gramian& g) {
    constexpr std::size_t kBeside = 8;
    const std::span<const double> entries = g.entries();
    double most[kBeside] = {};
    std::size_t k = 0;
    for (; k + kBeside <= entries.size(); k += kBeside) {
        for (std::size_t l = 0; l < kBeside; ++l) {
            most[l] = std::max(most[l], std::abs(entries[k + l]));
        }
    }
    for (; k < entries.size(); ++k) most[0] = std::max(most[0], std::abs(entries[k]));
    return *std::max_element(most, most + kBeside);
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
