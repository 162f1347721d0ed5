// Bins of a histogram of staleness: they add up over shards, and quantiles come out of the sum.
// Every value below 64 has a bin of its own; from there on each doubling has 32, so that a value
// known by its bin only is at most 1/32 too high, however many workers there are.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace detente {

inline constexpr std::uint64_t kExactStaleness = 64;
inline constexpr std::uint64_t kBinsPerDoubling = 32;
// From 2^6 to 2^64 there are 58 doublings: every value has a bin.
inline constexpr std::size_t kStalenessBins = kExactStaleness + 58 * kBinsPerDoubling;

constexpr std::size_t staleness_bin(std::uint64_t staleness) {
    if (staleness < kExactStaleness) return staleness;
    const auto doubling = static_cast<unsigned>(std::bit_width(staleness)) - 7;
    const std::uint64_t leading = staleness >> (doubling + 1);  // 32 to 63
    return kExactStaleness + doubling * kBinsPerDoubling + (leading - kBinsPerDoubling);
}

// The largest value in a bin.
constexpr std::uint64_t highest_staleness(std::size_t bin) {
    if (bin < kExactStaleness) return bin;
    if (bin + 1 >= kStalenessBins) return std::numeric_limits<std::uint64_t>::max();
    const std::uint64_t doubling = (bin - kExactStaleness) / kBinsPerDoubling;
    const std::uint64_t leading = kBinsPerDoubling + (bin - kExactStaleness) % kBinsPerDoubling;
    return ((leading + 1) << (doubling + 1)) - 1;
}

// Bins are added as they are needed: without large staleness there are none for it.
inline void count_staleness(std::vector<std::uint64_t>& bins, std::uint64_t staleness) {
    const std::size_t bin = staleness_bin(staleness);
    if (bins.size() <= bin) bins.resize(bin + 1);
    ++bins[bin];
}

// What a share q of the counts does not exceed, exact below 64; `highest` is the largest that was
// counted. 0 without counts.
inline std::uint64_t staleness_quantile(std::span<const std::uint64_t> bins, std::uint64_t highest,
                                        double q) {
    std::uint64_t total = 0;
    for (const std::uint64_t bin : bins) total += bin;
    if (total == 0) return 0;
    const auto rank =
        static_cast<std::uint64_t>(std::max(1.0, std::ceil(q * static_cast<double>(total))));
    std::uint64_t below = 0;
    for (std::size_t bin = 0; bin < bins.size(); ++bin) {
        below += bins[bin];
        if (below < rank) continue;
        const std::uint64_t value = highest_staleness(bin);
        return bin < kExactStaleness ? value : std::min(value, highest);
    }
    return highest;
}

}  // namespace detente
