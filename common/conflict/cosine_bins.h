// How often the gradients of a pair of tasks stood at which angle: counts of cosines in bins of
// equal width over [−1, 1], so that many workers' counts add up and quantiles come out of the sum.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace detente {

inline constexpr std::size_t kCosineBins = 32;

// The lower half of the bins holds exactly what is below zero.
inline std::size_t cosine_bin(double cosine) {
    constexpr double kHalf = kCosineBins / 2;
    const double scaled = std::clamp(std::floor(cosine * kHalf), -kHalf, kHalf - 1);
    return static_cast<std::size_t>(scaled + kHalf);
}

// Pairs (i, j), i < j, in the order (0, 1), (0, 2), …, (1, 2), ….
inline std::size_t pairs_of(std::size_t tasks) { return tasks * (tasks - (tasks > 0)) / 2; }

// The cosine below which a share q of the counts lies, spread evenly within its bin; 0 without
// counts. Requires: bins.size() == kCosineBins.
inline double cosine_quantile(std::span<const std::uint64_t> bins, double q) {
    double total = 0;
    for (const std::uint64_t bin : bins) total += static_cast<double>(bin);
    if (total == 0) return 0;
    double below = 0;
    for (std::size_t i = 0; i < bins.size(); ++i) {
        const auto here = static_cast<double>(bins[i]);
        if (here > 0 && below + here >= q * total) {
            const double within = std::clamp((q * total - below) / here, 0.0, 1.0);
            return (static_cast<double>(i) + within) * 2 / kCosineBins - 1;
        }
        below += here;
    }
    return 1;
}

}  // namespace detente
