#include "common/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace detente {

double Random::normal() {
    double u = uniform();
    while (u <= 0) u = uniform();
    const double v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

double Random::exponential() { return -std::log1p(-uniform()); }

std::vector<std::uint32_t> permutation(std::uint64_t key, std::uint32_t n) {
    std::vector<std::uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0U);
    Random random(key);
    for (std::uint32_t i = n; i > 1; --i) {
        const auto j = static_cast<std::uint32_t>(random.below(i));
        std::swap(order[i - 1], order[j]);
    }
    return order;
}

}  // namespace detente
