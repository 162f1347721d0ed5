#include "common/random.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <vector>

namespace detente {

TEST_CASE("random: scatter is SplitMix64's first output") {
    REQUIRE(scatter(0) == 0xE220A8397B1DCDAFULL);
    static_assert(scatter(0) == 0xE220A8397B1DCDAFULL);
}

TEST_CASE("random: a stream is a function of its key and counts like SplitMix64") {
    Random random(0);
    // SplitMix64 seeded with 0, from its second output on.
    REQUIRE(random.bits() == 0x6E789E6AA1B965F4ULL);
    REQUIRE(random.bits() == 0x06C45D188009454FULL);
    REQUIRE(random.bits() == 0xF88BB8A8724C81ECULL);
    Random a(random_key(5, Purpose::test, {1, 2}));
    Random b(random_key(5, Purpose::test, {1, 2}));
    for (int i = 0; i < 100; ++i) REQUIRE(a.bits() == b.bits());
}

TEST_CASE("random: a copied stream goes on where the original was") {
    Random a(9);
    a.bits();
    Random b = a;
    REQUIRE(a.bits() == b.bits());
}

TEST_CASE("random: keys differ in every coordinate, in their order and in their number") {
    std::set<std::uint64_t> keys;
    std::size_t made = 0;
    const auto add = [&](std::uint64_t key) {
        keys.insert(key);
        ++made;
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        for (const Purpose purpose : {Purpose::initial_weights, Purpose::aggregator}) {
            add(random_key(seed, purpose));
            for (std::uint64_t i = 0; i < 10; ++i) {
                add(random_key(seed, purpose, {i}));
                for (std::uint64_t j = 0; j < 10; ++j) add(random_key(seed, purpose, {i, j}));
            }
        }
    }
    REQUIRE(keys.size() == made);
}

TEST_CASE("random: uniform draws fill the unit interval with the right mean and variance") {
    Random random(random_key(1, Purpose::test));
    double sum = 0;
    double squares = 0;
    constexpr int kDraws = 100'000;
    for (int i = 0; i < kDraws; ++i) {
        const double u = random.uniform();
        REQUIRE(u >= 0);
        REQUIRE(u < 1);
        sum += u;
        squares += u * u;
    }
    REQUIRE(sum / kDraws == Approx(0.5).margin(0.005));
    REQUIRE(squares / kDraws == Approx(1.0 / 3).margin(0.005));
}

TEST_CASE("random: below draws every value about equally often and none above") {
    Random random(random_key(2, Purpose::test));
    std::vector<int> counts(7, 0);
    for (int i = 0; i < 70'000; ++i) ++counts.at(random.below(7));
    for (const int count : counts) REQUIRE(std::abs(count - 10'000) < 500);
    REQUIRE(random.below(1) == 0);
    constexpr std::uint64_t kLarge = (1ULL << 63U) + 1;
    for (int i = 0; i < 100; ++i) REQUIRE(random.below(kLarge) < kLarge);
}

TEST_CASE("random: normal draws have mean 0 and variance 1, exponential ones mean 1") {
    Random random(random_key(3, Purpose::test));
    double sum = 0;
    double squares = 0;
    double exponential = 0;
    constexpr int kDraws = 100'000;
    for (int i = 0; i < kDraws; ++i) {
        const double x = random.normal();
        REQUIRE(std::isfinite(x));
        sum += x;
        squares += x * x;
        const double e = random.exponential();
        REQUIRE(e >= 0);
        exponential += e;
    }
    REQUIRE(sum / kDraws == Approx(0).margin(0.02));
    REQUIRE(squares / kDraws == Approx(1).margin(0.02));
    REQUIRE(exponential / kDraws == Approx(1).margin(0.02));
}

TEST_CASE("random: a permutation holds each index once and depends on its key alone") {
    for (const std::uint32_t n : {0U, 1U, 2U, 10U, 1000U}) {
        auto order = permutation(random_key(4, Purpose::test), n);
        REQUIRE(order == permutation(random_key(4, Purpose::test), n));
        std::sort(order.begin(), order.end());
        for (std::uint32_t i = 0; i < n; ++i) REQUIRE(order[i] == i);
    }
    REQUIRE(permutation(random_key(4, Purpose::test), 1000) !=
            permutation(random_key(5, Purpose::test), 1000));
}

TEST_CASE("random: all orders of three come up about equally often") {
    std::vector<int> counts(27, 0);
    for (std::uint64_t seed = 0; seed < 6000; ++seed) {
        const auto order = permutation(random_key(seed, Purpose::test), 3);
        ++counts[order[0] * 9 + order[1] * 3 + order[2]];
    }
    REQUIRE(std::count(counts.begin(), counts.end(), 0) == 21);
    for (const int count : counts) REQUIRE((count == 0 || std::abs(count - 1000) < 150));
}

}  // namespace detente
