#include "common/conflict/interference.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "common/random.h"
#include "tests/reference/conflict_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;

double interference_of(const Rows& rows) {
    InterferenceIndex index;
    index.add(reference::gramian_of(rows));
    return index.value();
}

// The definition, on the gradients themselves.
double interference_by_hand(const Rows& rows) {
    double opposed = 0;
    double norms = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            const double product = reference::dot(rows[i], rows[j]);
            if (product < 0) opposed -= product;
            norms += std::sqrt(reference::dot(rows[i], rows[i]) * reference::dot(rows[j], rows[j]));
        }
    }
    return norms == 0 ? 0 : opposed / norms;
}

}  // namespace

TEST_CASE("interference: of three and four tasks is what hand and definition say") {
    // Products −2, 0, 0 of lengths 1, 2, 3: 2 of 2 + 3 + 6.
    REQUIRE(interference_of({{1, 0}, {-2, 0}, {0, 3}}) == Approx(2.0 / 11).epsilon(1e-15));
    // Products −3, 4, −12 of lengths 1, 5, 4: 15 of 5 + 4 + 20.
    REQUIRE(interference_of({{1, 0}, {-3, 4}, {4, 0}}) == Approx(15.0 / 29).epsilon(1e-15));
    // A square's corners: two pairs of six are opposed, four are at right angles.
    REQUIRE(interference_of({{1, 0}, {0, 1}, {-1, 0}, {0, -1}}) == Approx(1.0 / 3).epsilon(1e-15));
    // 120 degrees from each other: as opposed as three of one length can be.
    const double h = std::sqrt(3.0) / 2;
    REQUIRE(interference_of({{1, 0}, {-0.5, h}, {-0.5, -h}}) == Approx(0.5).epsilon(1e-14));
}

TEST_CASE("interference: is zero where nothing opposes and one where all there is does") {
    REQUIRE(interference_of({{1, 0, 0}, {1, 1, 0}, {0, 0, 2}}) == 0);
    REQUIRE(interference_of({{1, 2}, {1, 2}, {3, 6}}) == 0);
    REQUIRE(interference_of({{1, 2}, {-3, -6}}) == Approx(1).epsilon(1e-15));
    // A zero gradient opposes nobody, and there is nothing of it that could be.
    REQUIRE(interference_of({{1, 2}, {0, 0}, {-3, -6}}) == Approx(1).epsilon(1e-15));
    REQUIRE(interference_of({{0, 0}, {0, 0}, {0, 0}}) == 0);
    REQUIRE(interference_of({{1, 2}}) == 0);
    REQUIRE(InterferenceIndex().value() == 0);
}

TEST_CASE("interference: stays between zero and one and is free of order and scale") {
    Random random(random_key(1, Purpose::test));
    for (const std::size_t tasks : {2, 3, 5, 9, 16}) {
        for (const std::size_t rank : {std::size_t{1}, (tasks + 1) / 2, tasks}) {
            for (int trial = 0; trial < 20; ++trial) {
                CAPTURE(tasks, rank, trial);
                std::vector<double> scales;
                for (std::size_t i = 0; i < tasks; ++i) {
                    scales.push_back(std::pow(10.0, trial % 2 * (24 * random.uniform() - 12)));
                }
                const Rows rows = reference::random_rows(random, tasks, tasks + 2, rank, scales);
                const double value = interference_of(rows);
                REQUIRE(value == Approx(interference_by_hand(rows)).epsilon(1e-12).margin(1e-14));
                REQUIRE(value >= 0);
                REQUIRE(value <= 1);
                Rows others;
                for (const std::uint32_t i :
                     permutation(random.bits(), static_cast<std::uint32_t>(tasks))) {
                    others.push_back(rows[i]);
                    for (double& x : others.back()) x *= 1e-3;
                }
                REQUIRE(interference_of(others) == Approx(value).epsilon(1e-12).margin(1e-14));
            }
        }
    }
}

TEST_CASE("interference: over steps both sums go on so that long gradients count for more") {
    InterferenceIndex index;
    index.add(reference::gramian_of({{1, 0}, {-2, 0}, {0, 3}}));    // 2 of 11
    index.add(reference::gramian_of({{10, 0}, {0, 20}, {30, 0}}));  // 0 of 200 + 300 + 600
    REQUIRE(index.opposed() == Approx(2));
    REQUIRE(index.norms() == Approx(1111));
    REQUIRE(index.value() == Approx(2.0 / 1111).epsilon(1e-15));
}

TEST_CASE("interference: a pair that is not finite is left out and the others count") {
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        Gramian row = reference::gramian_of({{1, 0}, {-2, 0}, {0, 3}});
        for (std::size_t k = 0; k < 3; ++k) row.at(2, k) = row.at(k, 2) = bad;
        InterferenceIndex without;
        without.add(row);
        REQUIRE(without.value() == Approx(1));  // of the first two alone

        Gramian product = reference::gramian_of({{1, 0}, {-2, 0}, {0, 3}});
        product.at(0, 1) = product.at(1, 0) = bad;
        InterferenceIndex rest;
        rest.add(product);
        REQUIRE(rest.opposed() == 0);
        REQUIRE(rest.norms() == Approx(3 + 6));
    }
}

}  // namespace detente
