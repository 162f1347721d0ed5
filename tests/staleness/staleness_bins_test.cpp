// Bins in which shards count how stale updates were, and the quantiles that come out of them.
#include "common/staleness/staleness_bins.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();

TEST_CASE("staleness bins: below 64 each value has its own, above the error is at most a 32nd") {
    for (std::uint64_t staleness = 0; staleness < 64; ++staleness) {
        CHECK(staleness_bin(staleness) == staleness);
        CHECK(highest_staleness(staleness) == staleness);
    }
    for (std::uint64_t staleness = 64; staleness < 100'000; ++staleness) {
        const std::uint64_t told = highest_staleness(staleness_bin(staleness));
        REQUIRE(told >= staleness);
        REQUIRE(told - staleness <= staleness / 32);
    }
}

TEST_CASE("staleness bins: they follow each other without a gap up to the largest number") {
    for (std::size_t bin = 0; bin + 1 < kStalenessBins; ++bin) {
        const std::uint64_t highest = highest_staleness(bin);
        REQUIRE(staleness_bin(highest) == bin);
        REQUIRE(staleness_bin(highest + 1) == bin + 1);
    }
    CHECK(staleness_bin(kLargest) == kStalenessBins - 1);
    CHECK(highest_staleness(kStalenessBins - 1) == kLargest);
    CHECK(highest_staleness(100 * kStalenessBins) == kLargest);  // whatever a peer sends
}

TEST_CASE("staleness bins: quantiles are of the counts and never above the largest counted") {
    std::vector<std::uint64_t> bins;
    CHECK(staleness_quantile(bins, 0, 0.5) == 0);
    for (int i = 0; i < 98; ++i) count_staleness(bins, 7);
    count_staleness(bins, 1000);
    count_staleness(bins, 1001);
    CHECK(staleness_quantile(bins, 1001, 0.5) == 7);
    CHECK(staleness_quantile(bins, 1001, 0.98) == 7);
    CHECK(staleness_quantile(bins, 1001, 0.99) == 1001);  // their bin goes on to 1007
    CHECK(staleness_quantile(bins, 1001, 1) == 1001);
}

}  // namespace
}  // namespace detente
