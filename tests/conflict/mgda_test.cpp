#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/conflict/simplex_qp.h"
#include "common/random.h"
#include "tests/reference/conflict_reference.h"
#include "tests/reference/qp_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;

AggregatorOutput mgda(const Gramian& g) {
    const auto method = make_aggregator({"mgda", {}});
    REQUIRE(method.has_value());
    AggregatorState state = method.value()->initial_state(g.tasks());
    const auto output = method.value()->weights({&g, {}, 0}, state);
    REQUIRE(output.has_value());
    REQUIRE(output->weights.size() == g.tasks());
    return *output;
}

// The optimality conditions, written once more: everything in the simplex, no task's slope below
// the level, none with weight above it; relative to the largest entry.
double kkt_residual(const Gramian& g, const std::vector<double>& w) {
    double largest = 0;
    for (const double x : g.entries()) largest = std::max(largest, std::abs(x));
    if (largest == 0) largest = 1;
    const double level = reference::quadratic(g, w);
    double worst = std::abs(std::accumulate(w.begin(), w.end(), 0.0) - 1);
    for (std::size_t i = 0; i < w.size(); ++i) {
        double slope = 0;
        for (std::size_t j = 0; j < w.size(); ++j) slope += g.at(i, j) * w[j];
        worst = std::max(
            {worst, -w[i], (level - slope) / largest, std::abs(w[i] * (slope - level)) / largest});
    }
    return worst;
}

void check(const Rows& rows) {
    const Gramian g = reference::gramian_of(rows);
    const AggregatorOutput output = mgda(g);
    REQUIRE(output.kkt_residual.has_value());
    REQUIRE(*output.kkt_residual <= 1e-10);
    REQUIRE(kkt_residual(g, output.weights) <= 1e-10);
    REQUIRE(*output.kkt_residual == Approx(kkt_residual(g, output.weights)).margin(1e-15));
    const Row result = reference::combined(output.weights, rows);
    for (const Row& row : rows) {  // opposes nobody
        const double sizes = std::sqrt(reference::dot(row, row));
        double largest = 0;
        for (const Row& r : rows) largest = std::max(largest, std::sqrt(reference::dot(r, r)));
        REQUIRE(reference::dot(result, row) >= -1e-10 * largest * std::max(sizes, largest));
    }
}

}  // namespace

TEST_CASE("mgda: the worked example has weights .6 and .4 and the result 0, 1, 1") {
    const Rows rows = {{-4, 1, 1}, {6, 1, 1}};
    const AggregatorOutput output = mgda(reference::gramian_of(rows));
    REQUIRE(output.weights[0] == Approx(0.6).epsilon(1e-14));
    REQUIRE(output.weights[1] == Approx(0.4).epsilon(1e-14));
    REQUIRE(output.status == AggregatorStatus::ok);
    const Row result = reference::combined(output.weights, rows);
    REQUIRE(result[0] == Approx(0).margin(1e-14));
    REQUIRE(result[1] == Approx(1));
    REQUIRE(result[2] == Approx(1));
}

TEST_CASE("mgda: two tasks have the closed form of Sener and Koltun") {
    Random random(random_key(1, Purpose::test));
    for (int trial = 0; trial < 200; ++trial) {
        const Rows rows = reference::random_rows(random, 2, 4, 2, {1.0, random.uniform() * 3});
        const Gramian g = reference::gramian_of(rows);
        const double first = std::clamp(
            (g.at(1, 1) - g.at(0, 1)) / (g.at(0, 0) + g.at(1, 1) - 2 * g.at(0, 1)), 0.0, 1.0);
        REQUIRE(mgda(g).weights[0] == Approx(first).margin(1e-12));
    }
}

TEST_CASE("mgda: is as short as the best of all active sets, up to seven tasks and any rank") {
    Random random(random_key(2, Purpose::test));
    for (std::size_t tasks = 1; tasks <= 7; ++tasks) {
        for (std::size_t rank = 0; rank <= tasks; ++rank) {
            for (int trial = 0; trial < 12; ++trial) {
                CAPTURE(tasks, rank, trial);
                const Rows rows = reference::random_rows(random, tasks, 9, rank);
                const Gramian g = reference::gramian_of(rows);
                const AggregatorOutput output = mgda(g);
                check(rows);
                if (rank == 0) {
                    REQUIRE(output.status == AggregatorStatus::all_zero);
                    for (const double w : output.weights) {
                        REQUIRE(w == Approx(1.0 / static_cast<double>(tasks)));
                    }
                    continue;
                }
                const double found = reference::quadratic(g, output.weights);
                const double least = reference::quadratic(g, reference::least_on_simplex(g));
                REQUIRE(found == Approx(least).margin(1e-11 * g.at(0, 0)));
                if (rank == tasks) {
                    REQUIRE(output.status == AggregatorStatus::ok);
                    const std::vector<double> expected = reference::least_on_simplex(g);
                    for (std::size_t i = 0; i < tasks; ++i) {
                        REQUIRE(output.weights[i] == Approx(expected[i]).margin(1e-9));
                    }
                }
            }
        }
    }
}

TEST_CASE("mgda: meets the optimality conditions up to 64 tasks, of any rank") {
    Random random(random_key(3, Purpose::test));
    for (const std::size_t tasks : {8, 16, 32, 64}) {
        for (const std::size_t rank :
             {std::size_t{1}, std::size_t{2}, tasks / 2, tasks - 1, tasks}) {
            for (int trial = 0; trial < 4; ++trial) {
                CAPTURE(tasks, rank, trial);
                check(reference::random_rows(random, tasks, tasks + 5, rank));
            }
        }
    }
}

TEST_CASE("mgda: meets the optimality conditions at scales from 1e-12 to 1e12") {
    Random random(random_key(4, Purpose::test));
    for (const double scale : {1e-12, 1e-6, 1.0, 1e6, 1e12}) {
        for (const std::size_t tasks : {2, 5, 12}) {
            const std::vector<double> scales(tasks, scale);
            for (int trial = 0; trial < 5; ++trial) {
                check(reference::random_rows(random, tasks, 15, tasks, scales));
            }
        }
    }
    for (int trial = 0; trial < 50; ++trial) {  // mixed
        std::vector<double> scales;
        for (int i = 0; i < 8; ++i) scales.push_back(std::pow(10.0, 24 * random.uniform() - 12));
        CAPTURE(trial);
        check(reference::random_rows(random, 8, 15, 8, scales));
    }
}

TEST_CASE("mgda: is scale free: weights do not move when all gradients grow alike") {
    Random random(random_key(5, Purpose::test));
    const Rows rows = reference::random_rows(random, 6, 10, 6);
    const std::vector<double> expected = mgda(reference::gramian_of(rows)).weights;
    for (const double scale : {1e-12, 1e12}) {
        Rows scaled = rows;
        for (Row& row : scaled) {
            for (double& x : row) x *= scale;
        }
        const std::vector<double> found = mgda(reference::gramian_of(scaled)).weights;
        for (std::size_t i = 0; i < 6; ++i) {
            REQUIRE(found[i] == Approx(expected[i]).margin(1e-12));
        }
    }
}

TEST_CASE("mgda: orthogonal gradients of very different length weigh as 1 / norm²") {
    const Rows rows = {{1e6, 0, 0}, {0, 1, 0}, {0, 0, 1e-3}};
    const std::vector<double> w = mgda(reference::gramian_of(rows)).weights;
    const double total = 1e-12 + 1 + 1e6;
    REQUIRE(w[0] == Approx(1e-12 / total).epsilon(1e-9));
    REQUIRE(w[1] == Approx(1 / total).epsilon(1e-9));
    REQUIRE(w[2] == Approx(1e6 / total).epsilon(1e-9));
}

TEST_CASE("mgda: a zero gradient takes all the weight, several share it") {
    const Rows one = {{1, 2, 3}, {0, 0, 0}, {-1, 0, 2}};
    REQUIRE(mgda(reference::gramian_of(one)).weights == std::vector<double>{0, 1, 0});
    const Rows two = {{0, 0, 0}, {1, 2, 3}, {0, 0, 0}};
    const AggregatorOutput output = mgda(reference::gramian_of(two));
    REQUIRE(output.weights == std::vector<double>{0.5, 0, 0.5});
    REQUIRE(output.status == AggregatorStatus::degenerate);
}

TEST_CASE("mgda: repeated gradients share the weight of one") {
    Random random(random_key(6, Purpose::test));
    for (int trial = 0; trial < 20; ++trial) {
        Rows rows = reference::random_rows(random, 3, 8, 3);
        const std::vector<double> single = mgda(reference::gramian_of(rows)).weights;
        rows.push_back(rows[1]);
        rows.push_back(rows[1]);
        const std::vector<double> found = mgda(reference::gramian_of(rows)).weights;
        check(rows);
        REQUIRE(found[0] == Approx(single[0]).margin(1e-12));
        REQUIRE(found[2] == Approx(single[2]).margin(1e-12));
        for (const std::size_t i : {1, 3, 4}) {
            REQUIRE(found[i] == Approx(single[1] / 3).margin(1e-12));
        }
    }
}

TEST_CASE("mgda: opposite gradients cancel") {
    const Rows rows = {{2, 0}, {-1, 0}};
    const AggregatorOutput output = mgda(reference::gramian_of(rows));
    REQUIRE(output.weights[0] == Approx(1.0 / 3));
    REQUIRE(output.weights[1] == Approx(2.0 / 3));
    REQUIRE(output.status == AggregatorStatus::ok);
}

TEST_CASE("mgda: says when several weights are least") {
    // Zero is the midpoint of either diagonal of a square.
    const Rows square = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
    const AggregatorOutput output = mgda(reference::gramian_of(square));
    REQUIRE(output.status == AggregatorStatus::degenerate);
    REQUIRE(std::sqrt(reference::quadratic(reference::gramian_of(square), output.weights)) < 1e-12);
}

TEST_CASE("mgda: nearly repeated gradients still meet the optimality conditions") {
    Random random(random_key(7, Purpose::test));
    for (const double apart : {1e-3, 1e-6, 1e-9, 1e-12, 1e-15}) {
        for (int trial = 0; trial < 10; ++trial) {
            CAPTURE(apart, trial);
            Rows rows = reference::random_rows(random, 6, 10, 6);
            for (std::size_t i = 3; i < 6; ++i) {
                for (std::size_t k = 0; k < 10; ++k) {
                    rows[i][k] = rows[i - 3][k] + apart * random.normal();
                }
            }
            check(rows);
        }
    }
}

TEST_CASE("mgda: bears a Gramian that rounding in float made indefinite") {
    Random random(random_key(8, Purpose::test));
    for (int trial = 0; trial < 60; ++trial) {
        const std::size_t tasks = 3 + static_cast<std::size_t>(trial) % 14;
        const std::size_t rank = 1 + static_cast<std::size_t>(trial) % 3;
        Gramian g = reference::gramian_of(reference::random_rows(random, tasks, 10, rank));
        for (std::size_t i = 0; i < tasks; ++i) {
            for (std::size_t j = 0; j <= i; ++j) {
                g.at(i, j) *= 1 + 1e-8 * random.normal();
                g.at(j, i) = g.at(i, j);
            }
        }
        CAPTURE(trial, tasks, rank);
        REQUIRE(kkt_residual(g, mgda(g).weights) <= 1e-10);
    }
}

TEST_CASE("mgda: permuting tasks permutes the weights") {
    Random random(random_key(9, Purpose::test));
    for (const std::uint32_t tasks : {2, 3, 8, 20}) {
        const Rows rows = reference::random_rows(random, tasks, tasks + 4, tasks);
        const auto order = permutation(random_key(10, Purpose::test, {tasks}), tasks);
        Rows shuffled;
        for (const std::uint32_t i : order) shuffled.push_back(rows[i]);
        const std::vector<double> straight = mgda(reference::gramian_of(rows)).weights;
        const std::vector<double> found = mgda(reference::gramian_of(shuffled)).weights;
        for (std::size_t i = 0; i < tasks; ++i) {
            REQUIRE(found[i] == Approx(straight[order[i]]).margin(1e-10));
        }
    }
}

TEST_CASE("simplex: the residual reported is that of the conditions, and large for a wrong point") {
    const Gramian g = reference::gramian_of({{-4, 1, 1}, {6, 1, 1}});
    REQUIRE(simplex_kkt_residual(g, std::vector<double>{0.6, 0.4}) < 1e-15);
    REQUIRE(simplex_kkt_residual(g, std::vector<double>{0.5, 0.5}) > 1e-2);
    REQUIRE(simplex_kkt_residual(g, std::vector<double>{0.6, 0.5}) > 1e-2);
    REQUIRE(simplex_kkt_residual(g, std::vector<double>{1.2, -0.2}) > 1e-2);
}

}  // namespace detente
