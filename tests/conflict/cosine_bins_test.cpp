#include "common/conflict/cosine_bins.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

namespace detente {
namespace {

using Counts = std::vector<std::uint64_t>;

Counts counts_of(const std::vector<std::pair<double, std::uint64_t>>& cosines) {
    Counts counts(kCosineBins, 0);
    for (const auto& [cosine, times] : cosines) counts[cosine_bin(cosine)] += times;
    return counts;
}

}  // namespace

TEST_CASE("cosine bins: the lower half holds what is below zero and nothing else") {
    REQUIRE(cosine_bin(-1) == 0);
    REQUIRE(cosine_bin(1) == kCosineBins - 1);
    REQUIRE(cosine_bin(0) == kCosineBins / 2);
    REQUIRE(cosine_bin(-0.0) == kCosineBins / 2);
    REQUIRE(cosine_bin(-std::numeric_limits<double>::denorm_min()) == kCosineBins / 2 - 1);
    REQUIRE(cosine_bin(std::numeric_limits<double>::denorm_min()) == kCosineBins / 2);
    REQUIRE(cosine_bin(-1 - 1e-9) == 0);
    REQUIRE(cosine_bin(1 + 1e-9) == kCosineBins - 1);
    for (std::size_t bin = 0; bin < kCosineBins; ++bin) {
        const double begin = static_cast<double>(bin) * 2 / kCosineBins - 1;
        REQUIRE(cosine_bin(begin) == bin);
        REQUIRE(cosine_bin(std::nextafter(begin + 2.0 / kCosineBins, -2)) == bin);
    }
}

TEST_CASE("cosine bins: a quantile is where its share of the counts lies, even within a bin") {
    // Bins are a sixteenth wide.
    REQUIRE(cosine_quantile(counts_of({{-0.25, 10}, {0.75, 30}}), 0.1) == Approx(-0.25 + 0.4 / 16));
    REQUIRE(cosine_quantile(counts_of({{-0.25, 10}, {0.75, 30}}), 0.9) ==
            Approx(0.75 + 26.0 / 30 / 16));
    REQUIRE(cosine_quantile(counts_of({{-1, 1}}), 0.5) == Approx(-1 + 0.5 / 16));
    REQUIRE(cosine_quantile(counts_of({{1, 7}}), 0.9) == Approx(1 - 0.1 / 16));
    // At the end of a bin's counts, and at the ends of all.
    REQUIRE(cosine_quantile(counts_of({{-0.5, 1}, {0.5, 9}}), 0.1) == Approx(-0.5 + 1.0 / 16));
    REQUIRE(cosine_quantile(counts_of({{-0.5, 1}, {0.5, 9}}), 0) == Approx(-0.5));
    REQUIRE(cosine_quantile(counts_of({{-0.5, 1}, {0.5, 9}}), 1) == Approx(0.5 + 1.0 / 16));
    REQUIRE(cosine_quantile(Counts(kCosineBins, 0), 0.5) == 0);
}

TEST_CASE("cosine bins: there is a place for each pair of tasks") {
    REQUIRE(pairs_of(0) == 0);
    REQUIRE(pairs_of(1) == 0);
    REQUIRE(pairs_of(2) == 1);
    REQUIRE(pairs_of(5) == 10);
}

}  // namespace detente
