// The quadratic programs' solvers and their factor: what they share between programs, and that they
// need few steps.
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "common/conflict/fair_point.h"
#include "common/conflict/orthant_qp.h"
#include "common/conflict/pivoted_cholesky.h"
#include "common/conflict/simplex_qp.h"
#include "common/conflict/small_matrix.h"
#include "common/random.h"
#include "tests/conflict/method_run.h"

namespace detente {
namespace {

using reference::Rows;

}  // namespace

TEST_CASE("cone: one unit bound after the other has what each alone has") {
    Random random(random_key(18, Purpose::test));
    for (const std::size_t tasks : {1, 2, 7, 8, 9, 20}) {
        for (const std::size_t rank : {std::size_t{1}, (tasks + 1) / 2, tasks}) {
            const Rows rows = reference::random_rows(random, tasks, 24, rank);
            const Gramian g = reference::gramian_of(rows);
            const std::vector<OrthantPoint> points = least_norms_above_units(g);
            REQUIRE(points.size() == tasks);
            for (std::size_t task = 0; task < tasks; ++task) {
                CAPTURE(tasks, rank, task);
                std::vector<double> lower(tasks, 0.0);
                lower[task] = 1;
                const OrthantPoint alone = least_norm_above(g, lower);
                REQUIRE(points[task].v == alone.v);
                REQUIRE(points[task].settled == alone.settled);
                REQUIRE(orthant_kkt_residual(g, lower, alone.v) <= 1e-12);
            }
        }
    }
}

TEST_CASE("simplex: among many rows the support is found at once and not row by row") {
    Random random(random_key(15, Purpose::test));
    constexpr std::size_t kTasks = 24;
    for (int trial = 0; trial < 20; ++trial) {
        CAPTURE(trial);
        Rows rows = reference::random_rows(random, kTasks, 3 * kTasks, kTasks);
        for (std::size_t i = kTasks / 2; i < kTasks && trial % 2 == 1; ++i) {  // half opposite
            for (std::size_t k = 0; k < 3 * kTasks; ++k) {
                rows[i][k] = 0.01 * rows[i][k] - rows[i - kTasks / 2][k];
            }
        }
        const Gramian g = reference::gramian_of(rows);
        const SimplexPoint point = least_norm_on_simplex(g);
        REQUIRE(point.unique);
        REQUIRE(simplex_kkt_residual(g, point.weights) <= 1e-14);
        REQUIRE(point.iterations <= 3);  // 23 where each enters by itself
    }
}

TEST_CASE("simplex: one t after the other has what each alone has") {
    Random random(random_key(16, Purpose::test));
    for (const std::size_t tasks : {1, 2, 5, 8, 17}) {
        for (const std::size_t rank : {std::size_t{1}, (tasks + 1) / 2, tasks}) {
            Rows rows = reference::random_rows(random, tasks, 20, rank);
            if (tasks > 2) rows[2] = rows[0];  // one of a kind
            const Gramian g = reference::gramian_of(rows);
            const std::vector<double> h =
                times(g, std::vector<double>(tasks, 1.0 / static_cast<double>(tasks)));
            SimplexProgram program(g, h);
            for (const double t : {1.0, 1e-3, 30.0, 0.4, 0.0}) {
                CAPTURE(tasks, rank, t);
                const SimplexPoint after = program.least(t);
                const SimplexPoint alone = SimplexProgram(g, h).least(t);
                REQUIRE(after.kkt_residual <= 1e-12);
                REQUIRE(after.kkt_residual == simplex_kkt_residual(g, after.weights, h, t));
                REQUIRE(alone.kkt_residual <= 1e-12);
                test::require_near(reference::combined(after.weights, rows),
                                   reference::combined(alone.weights, rows), 1e-8);
                if (tasks > 2) REQUIRE(after.weights[0] == after.weights[2]);
            }
        }
    }
}

TEST_CASE("cholesky: solves at every rank and however near rows are") {
    Random random(random_key(17, Purpose::test));
    for (const std::size_t n : {1, 2, 7, 8, 9, 17, 32}) {
        for (const std::size_t rank : {std::size_t{1}, (n + 1) / 2, n}) {
            for (const double apart : {1.0, 1e-5}) {
                CAPTURE(n, rank, apart);
                std::vector<double> scales;
                for (std::size_t i = 0; i < n; ++i) {
                    scales.push_back(std::pow(10.0, 8 * random.uniform() - 4));
                }
                Rows rows = reference::random_rows(random, n, n + 3, rank, scales);
                for (std::size_t i = 1; i < n && rank == n; ++i) {
                    const double by = scales[i] / scales[0];
                    for (std::size_t k = 0; k < n + 3; ++k) {
                        rows[i][k] = by * rows[0][k] + apart * (rows[i][k] - by * rows[0][k]);
                    }
                }
                const Gramian g = reference::gramian_of(rows);
                const PivotedCholesky factor({g.entries().begin(), g.entries().end()}, n, 1e-13);
                REQUIRE(factor.rank() == rank);
                REQUIRE(factor.well_apart() == (rank == n && (apart == 1.0 || n == 1)));
                std::vector<double> x(n, 0.0);
                for (std::size_t p = 0; p < rank; ++p) {
                    x[factor.order()[p]] = random.normal() / scales[factor.order()[p]];
                }
                const std::vector<double> right = times(g, x);
                const std::vector<double> again = times(g, factor.solve(right));
                for (std::size_t i = 0; i < n; ++i) {
                    REQUIRE(again[i] == Approx(right[i]).margin(1e-9 * scales[i]));
                }
            }
        }
    }
}

TEST_CASE("fairgrad: there is a bargain exactly where the hull of unit rows keeps off zero") {
    Random random(random_key(19, Purpose::test));
    for (const double apart : {1e-2, 1e-4, 1e-5, 1e-6, 3e-7, 1e-7, 3e-8, 1e-9, 0.0}) {
        for (const std::size_t tasks : {2, 3, 6}) {
            Rows rows = reference::random_rows(random, tasks, 8, tasks);
            for (std::size_t k = 0; k < 8; ++k) rows[1][k] = apart * rows[1][k] - rows[0][k];
            const Gramian units = normalised(reference::gramian_of(rows));
            const double hull = squared_length(units, least_norm_on_simplex(units).weights);
            for (const double a : {2.5, 5.0, 20.0}) {
                CAPTURE(apart, tasks, a, hull);
                REQUIRE(fair_point(units, a).exists == (hull > 1e-14));
            }
        }
    }
}

TEST_CASE("fairgrad: a steep fairness takes few steps among many rows") {
    Random random(random_key(20, Purpose::test));
    constexpr std::size_t kTasks = 24;
    for (const double share : {0.0, 0.999}) {
        Rows rows = reference::random_rows(random, kTasks, 3 * kTasks, kTasks);
        for (std::size_t k = 0; k < 3 * kTasks; ++k) {
            double sum = 0;
            for (const reference::Row& row : rows) sum += row[k];
            for (reference::Row& row : rows) row[k] -= share * sum / kTasks;
        }
        const FairPoint point = fair_point(reference::gramian_of(rows), 5);
        CAPTURE(share, point.iterations);
        REQUIRE(point.exists);
        REQUIRE(point.residual <= 1e-8);
        REQUIRE(point.iterations <= (share == 0 ? 29 : 40));  // not 39 and 50
    }
}

}  // namespace detente
