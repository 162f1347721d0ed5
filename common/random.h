// Randomness is a function of what it is for, never a shared stream: mix a key from (seed, purpose,
// worker, task, step), then draw from a small counter-based generator. Bits are the same on every
// platform (no std:: distributions).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

namespace detente {

enum class Purpose : std::uint64_t {
    initial_weights = 1,
    batch_order = 2,
    pairing = 3,
    aggregator = 4,
    task_stream = 5,
    network = 6,
    compute_time = 7,
    test = 8,
    imposed_staleness = 9,
    model = 10,  // of the models that need no library: their optimum, their noise
};

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that scatters bits well.
constexpr std::uint64_t scatter(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31U);
}
constexpr std::uint64_t random_key(std::uint64_t seed, Purpose purpose,
                                   std::initializer_list<std::uint64_t> coordinates = {}) {
    std::uint64_t key = scatter(seed ^ scatter(static_cast<std::uint64_t>(purpose)));
    for (const std::uint64_t c : coordinates) key = scatter(key ^ scatter(c + 1));
    return key;
}

// A stream from a key: value type, cheap to make, cheap to copy.
class Random {
  public:
    explicit constexpr Random(std::uint64_t key) : key_(key) {}
    constexpr std::uint64_t bits() { return scatter(key_ + 0x9E3779B97F4A7C15ULL * ++count_); }
    // In [0, 1), 53 bits.
    constexpr double uniform() { return static_cast<double>(bits() >> 11U) * 0x1.0p-53; }
    // In [0, bound); unbiased by rejection. Requires: bound > 0.
    constexpr std::uint64_t below(std::uint64_t bound) {
        const std::uint64_t limit = std::numeric_limits<std::uint64_t>::max() -
                                    std::numeric_limits<std::uint64_t>::max() % bound;
        std::uint64_t x = bits();
        while (x >= limit) x = bits();
        return x % bound;
    }
    double normal();       // Box–Muller, one value per call
    double exponential();  // mean 1

  private:
    std::uint64_t key_;
    std::uint64_t count_ = 0;
};

// Fisher–Yates permutation of 0..n-1 drawn from `key`.
std::vector<std::uint32_t> permutation(std::uint64_t key, std::uint32_t n);

}  // namespace detente
