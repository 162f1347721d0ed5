// The programs and equations behind methods, against slow solvers written another way.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <vector>

#include "common/conflict/orthant_qp.h"
#include "common/conflict/simplex_projection.h"
#include "common/conflict/symmetric_eigen.h"
#include "common/random.h"
#include "tests/conflict/method_run.h"
#include "tests/reference/fair_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::run;

}  // namespace

TEST_CASE("cone: is as short as the best of all active sets, up to seven tasks and any rank") {
    Random random(random_key(1, Purpose::test));
    for (std::size_t tasks = 1; tasks <= 7; ++tasks) {
        for (std::size_t rank = 1; rank <= tasks; ++rank) {
            for (int trial = 0; trial < 12; ++trial) {
                CAPTURE(tasks, rank, trial);
                const Rows rows = reference::random_rows(random, tasks, 9, rank);
                const Gramian g = reference::gramian_of(rows);
                std::vector<double> lower(tasks);
                for (double& b : lower) b = random.uniform() < 0.3 ? 0 : random.uniform();
                const OrthantPoint point = least_norm_above(g, lower);
                const std::vector<double> expected = reference::least_quadratic(g, lower, false);
                REQUIRE(point.settled);
                REQUIRE(orthant_kkt_residual(g, lower, point.v) <= 1e-10);
                // The result is unique, the weights are where the rows are independent.
                test::require_near(reference::combined(point.v, rows),
                                   reference::combined(expected, rows), 1e-8);
                if (rank == tasks) test::require_near(point.v, expected, 1e-8);
            }
        }
    }
}

TEST_CASE("cone: nearly repeated and nearly opposite rows still meet the conditions") {
    Random random(random_key(2, Purpose::test));
    for (const double apart : {1e-3, 1e-5, 1e-7, 1e-9, 1e-12, 1e-15}) {
        for (int trial = 0; trial < 20; ++trial) {
            CAPTURE(apart, trial);
            Rows rows = reference::random_rows(random, 6, 10, 6);
            for (std::size_t i = 3; i < 6; ++i) {
                const double sign = i == 5 ? -1 : 1;
                for (std::size_t k = 0; k < 10; ++k) {
                    rows[i][k] = sign * rows[i - 3][k] + apart * random.normal();
                }
            }
            const Gramian g = reference::gramian_of(rows);
            const std::vector<double> lower(6, 1.0 / 6);
            const OrthantPoint point = least_norm_above(g, lower);
            for (const double v : point.v) REQUIRE(std::isfinite(v));
            if (point.settled) {
                // Weights may be as large as 1 / apart, and count twice: their rounding does too.
                double largest = 1;
                for (const double v : point.v) largest = std::max(largest, v);
                REQUIRE(orthant_kkt_residual(g, lower, point.v) <=
                        1e-10 + 1e-14 * largest * largest);
            }
        }
    }
}

TEST_CASE("cone: among many rows at odds the support is found at once and not row by row") {
    Random random(random_key(14, Purpose::test));
    constexpr std::size_t kTasks = 24;
    for (int trial = 0; trial < 10; ++trial) {
        Rows rows = reference::random_rows(random, kTasks, 3 * kTasks, kTasks);
        for (std::size_t k = 0; k < 3 * kTasks; ++k) {  // a thousandth of the mean is left
            double sum = 0;
            for (const Row& row : rows) sum += row[k];
            for (Row& row : rows) row[k] -= 0.999 * sum / kTasks;
        }
        const Gramian g = reference::gramian_of(rows);
        for (std::size_t task = 0; task < kTasks; ++task) {
            CAPTURE(trial, task);
            std::vector<double> lower(kTasks, 0.0);
            lower[task] = 1;
            const OrthantPoint point = least_norm_above(g, lower);
            REQUIRE(point.settled);
            REQUIRE(orthant_kkt_residual(g, lower, point.v) <= 1e-12);
            REQUIRE(point.iterations <= 3);  // 23 where each enters by itself
        }
    }
}

TEST_CASE("cone: a zero row keeps its bound") {
    const Gramian g = reference::gramian_of({{1, 0}, {0, 0}, {-1, 1}});
    const OrthantPoint point = least_norm_above(g, std::vector<double>{1, 0.25, 1});
    REQUIRE(point.v[1] == 0.25);
    REQUIRE(point.settled);
}

TEST_CASE("cone: the residual is that of the conditions, and large for a wrong point") {
    const Gramian g = reference::gramian_of({{-4, 1, 1}, {6, 1, 1}});
    const std::vector<double> b = {0.5, 0.5};
    REQUIRE(orthant_kkt_residual(g, b, std::vector<double>{0.5, 0.5}) > 1e-2);  // opposes task 0
    REQUIRE(orthant_kkt_residual(g, b, std::vector<double>{11.0 / 18, 0.5}) < 1e-12);
    REQUIRE(orthant_kkt_residual(g, b, std::vector<double>{2, 0.5}) > 1e-2);    // too far
    REQUIRE(orthant_kkt_residual(g, b, std::vector<double>{0.4, 0.5}) > 1e-2);  // below b
}

TEST_CASE("simplex: the projection is that of bisection") {
    Random random(random_key(3, Purpose::test));
    for (int trial = 0; trial < 200; ++trial) {
        std::vector<double> x(1 + random.below(8));
        for (double& value : x) value = 3 * random.normal();
        const std::vector<double> found = projected_on_simplex(x);
        test::require_near(found, reference::project_on_simplex(x), 1e-12);
    }
    REQUIRE(projected_on_simplex(std::vector<double>{1e20, 0}) == std::vector<double>{1, 0});
}

TEST_CASE("eigen: vectors are orthonormal and rebuild the matrix at any rank and scale") {
    Random random(random_key(4, Purpose::test));
    for (const std::size_t n : {1, 2, 3, 8, 17}) {
        for (const std::size_t rank : {std::size_t{1}, (n + 1) / 2, n}) {
            for (const double scale : {1e-12, 1.0, 1e12}) {
                CAPTURE(n, rank, scale);
                const Gramian g = reference::gramian_of(
                    reference::random_rows(random, n, n + 2, rank, std::vector<double>(n, scale)));
                const SymmetricEigen eigen(g);
                REQUIRE(eigen.rank() == rank);
                for (std::size_t i = 0; i < n; ++i) {
                    for (std::size_t j = 0; j < n; ++j) {
                        double product = 0;
                        double rebuilt = 0;
                        for (std::size_t k = 0; k < n; ++k) {
                            product += eigen.vector(i)[k] * eigen.vector(j)[k];
                            rebuilt += eigen.values()[k] * eigen.vector(k)[i] * eigen.vector(k)[j];
                        }
                        REQUIRE(product == Approx(i == j ? 1 : 0).margin(1e-13));
                        REQUIRE(rebuilt == Approx(g.at(i, j)).margin(1e-13 * eigen.values()[0]));
                    }
                }
            }
        }
    }
}

TEST_CASE("upgrad: is the sum over all active sets, a T-th of each") {
    Random random(random_key(5, Purpose::test));
    for (std::size_t tasks = 1; tasks <= 6; ++tasks) {
        for (int trial = 0; trial < 10; ++trial) {
            const Rows rows = reference::random_rows(random, tasks, 9, tasks);
            std::vector<double> expected = reference::upgrad_weights(reference::gramian_of(rows));
            for (double& w : expected) w /= static_cast<double>(tasks);
            test::require_near(run("upgrad", rows).output.weights, expected, 1e-9);
        }
    }
}

TEST_CASE("dualproj: is the point of the dual cone nearest to the mean") {
    Random random(random_key(6, Purpose::test));
    for (int trial = 0; trial < 50; ++trial) {
        const std::size_t tasks = 2 + random.below(4);
        const Rows rows = reference::random_rows(random, tasks, 5, tasks);
        const Row mean = run("mean", rows).result;
        const Row found = run("dualproj", rows).result;
        const auto distance = [&](const Row& to) {
            double sum = 0;
            for (std::size_t k = 0; k < to.size(); ++k) {
                sum += (to[k] - mean[k]) * (to[k] - mean[k]);
            }
            return sum;
        };
        for (int other = 0; other < 200; ++other) {  // none of many others in the cone is nearer
            Row point = found;
            for (double& x : point) x += 0.1 * random.normal();
            bool inside = true;
            for (const Row& row : rows) inside = inside && reference::dot(row, point) >= 0;
            if (inside) REQUIRE(distance(point) >= distance(found) - 1e-12);
        }
    }
}

TEST_CASE("cagrad: is as low as projected gradients get, for balls of every size") {
    Random random(random_key(7, Purpose::test));
    int at_zero = 0;
    for (const double c : {0.01, 0.2, 0.5, 0.9, 1.5}) {
        for (int trial = 0; trial < 12; ++trial) {
            const std::size_t tasks = 2 + random.below(4);
            const std::size_t rank = 1 + random.below(tasks);
            const Rows rows = reference::random_rows(random, tasks, 8, rank);
            CAPTURE(c, tasks, rank, trial);
            const DenseResult found = run("cagrad", rows, {{"c", std::to_string(c)}});
            const std::vector<double> slow = reference::cagrad_weights(rows, c);
            const double least = reference::cagrad_objective(rows, slow, c);
            if (found.output.status != AggregatorStatus::ok) {
                // The least is at g_w = 0, where the objective is 0: the choice is the mean.
                REQUIRE(least >= -1e-9);
                REQUIRE(found.output.status == AggregatorStatus::degenerate);
                REQUIRE(found.output.weights == run("mean", rows).output.weights);
                ++at_zero;
                continue;
            }
            // What was added to b, made a point of the simplex again.
            std::vector<double> w = found.output.weights;
            double sum = 0;
            for (double& x : w) sum += x -= 1.0 / static_cast<double>(tasks);
            for (double& x : w) x /= sum;
            REQUIRE(reference::cagrad_objective(rows, w, c) <= least + 1e-9);
            // The result lies on the ball around the mean.
            const Row mean = run("mean", rows).result;
            Row away = found.result;
            for (std::size_t k = 0; k < away.size(); ++k) away[k] -= mean[k];
            REQUIRE(test::length(away) == Approx(c * test::length(mean)).epsilon(1e-9));
        }
    }
    REQUIRE(at_zero >= 3);
}

TEST_CASE("cagrad: is as low as searched for where rows are of very different length") {
    Random random(random_key(12, Purpose::test));
    std::vector<Rows> problems = {{{1e8, 0}, {-1e-8, 3e-8}, {1e-8, -1e-8}}};
    for (int trial = 0; trial < 40; ++trial) {
        std::vector<double> scales;
        for (int i = 0; i < 3; ++i) scales.push_back(std::pow(10.0, 16 * random.uniform() - 8));
        std::sort(scales.begin(), scales.end(), std::greater<>());
        problems.push_back(reference::random_rows(random, 3, 2 + random.below(3), 3, scales));
    }
    for (const Rows& rows : problems) {
        CAPTURE(rows);
        const DenseResult found = run("cagrad", rows);
        const Row mean = run("mean", rows).result;
        const auto [least, at] = reference::cagrad_search(rows, 0.5);
        double size = 0;  // of the objective's terms
        for (std::size_t i = 0; i < 3; ++i) size += at[i] * test::length(rows[i]);
        size *= test::length(mean);
        if (found.output.status != AggregatorStatus::ok) {
            REQUIRE(least >= -1e-7 * size);
            REQUIRE(found.output.weights == run("mean", rows).output.weights);
            continue;
        }
        std::vector<double> w = found.output.weights;
        double sum = 0;
        for (double& x : w) sum += x -= 1.0 / 3;
        for (double& x : w) x /= sum;
        REQUIRE(reference::cagrad_objective(rows, w, 0.5) <= least + 1e-7 * size);
    }
}

TEST_CASE("cagrad: the worst task gains most of all directions in the ball") {
    Random random(random_key(8, Purpose::test));
    for (int trial = 0; trial < 30; ++trial) {
        const Rows rows = reference::random_rows(random, 3, 4, 3);
        const DenseResult found = run("cagrad", rows, {{"c", "0.4"}});
        const Row mean = run("mean", rows).result;
        const auto worst = [&](const Row& direction) {
            double least = 1e300;
            for (const Row& row : rows) least = std::min(least, reference::dot(row, direction));
            return least;
        };
        for (int other = 0; other < 300; ++other) {
            Row step(4);
            for (double& x : step) x = random.normal();
            const double by = 0.4 * test::length(mean) / test::length(step);
            for (std::size_t k = 0; k < 4; ++k) step[k] = mean[k] + by * step[k];
            REQUIRE(worst(step) <= worst(found.result) + 1e-9);
        }
    }
}

TEST_CASE("cagrad: with no ball is the mean") {
    const Rows rows = {{-4, 1, 1}, {6, 1, 1}};
    REQUIRE(run("cagrad", rows, {{"c", "0"}}).output.weights == std::vector<double>{0.5, 0.5});
}

TEST_CASE("nash and fairgrad: weights are those of bisection coordinate by coordinate") {
    Random random(random_key(9, Purpose::test));
    for (const double a : {0.3, 1.0, 2.5}) {
        for (int trial = 0; trial < 12; ++trial) {
            const std::size_t tasks = 1 + random.below(5);
            std::vector<double> scales;
            for (std::size_t i = 0; i < tasks; ++i) scales.push_back(0.1 + 3 * random.uniform());
            const Rows rows = reference::random_rows(random, tasks, 12, tasks, scales);
            CAPTURE(a, tasks, trial);
            const std::vector<double> expected =
                reference::fair_weights(reference::gramian_of(rows), a);
            const auto found = run("fairgrad", rows, {{"alpha", std::to_string(a)}});
            REQUIRE(found.output.status == AggregatorStatus::ok);
            test::require_near(found.output.weights, expected, 1e-7);
            if (a == 1.0) test::require_near(run("nash", rows).output.weights, expected, 1e-7);
        }
    }
}

TEST_CASE("nash: nearly opposite gradients bargain as the closed form of two has it") {
    for (const double apart : {1e-2, 3e-3, 1e-3, 3e-4, 1e-4}) {
        for (const double ratio : {1e-3, 0.3, 1.0, 1e4}) {
            CAPTURE(apart, ratio);
            const Rows rows = {{1, 0}, {-ratio * std::cos(apart), ratio * std::sin(apart)}};
            const double half = std::sin(apart / 2);
            const double first = 1 / std::sqrt(2 * half * half);  // 1/√(1 + cos θ)
            const DenseResult result = run("nash", rows);
            REQUIRE(result.output.status == AggregatorStatus::ok);
            // 1 + cos θ as G has it has lost digits.
            const double margin = 1e-15 / (half * half);
            REQUIRE(result.output.weights[0] == Approx(first).epsilon(margin + 1e-10));
            REQUIRE(result.output.weights[1] * ratio == Approx(first).epsilon(margin + 1e-10));
        }
    }
}

TEST_CASE("nash and fairgrad: pairs that nearly cancel have a bargain at every alpha") {
    const std::vector<Rows> pairs = {{{0.7, 0.3}, {-0.77, -0.329}},
                                     {{1, 0}, {-3, 0.0009}},
                                     {{1, 0}, {-3, 0.9}},
                                     {{1, 0, 0}, {-3, 0.001, 0}, {0, 0, 0.1}}};
    for (const Rows& rows : pairs) {
        REQUIRE(run("nash", rows).output.status == AggregatorStatus::ok);
        for (const double a : {0.05, 0.2, 1.0, 5.0, 100.0}) {
            CAPTURE(rows[1], a);
            const DenseResult found = run("fairgrad", rows, {{"alpha", std::to_string(a)}});
            REQUIRE(found.output.status == AggregatorStatus::ok);
            const std::vector<double>& w = found.output.weights;
            for (std::size_t i = 0; i < rows.size(); ++i) {
                REQUIRE(w[i] > 0);
                double gain = 0;
                double terms = 0;
                for (std::size_t j = 0; j < rows.size(); ++j) {
                    gain += found.gramian.at(i, j) * w[j];
                    terms += std::abs(found.gramian.at(i, j)) * w[j];
                }
                const double wanted = std::pow(w[i], -1 / a);
                REQUIRE(std::abs(gain - wanted) <= 1e-9 * wanted + 1e-14 * terms);
            }
        }
    }
}

TEST_CASE("fairgrad: a unit of length moves no direction at the limits of alpha") {
    const Rows rows = {{1, 0.5}, {-1, 0.75}};
    for (const std::string alpha : {"0.05", "100"}) {
        const Row one = run("fairgrad", rows, {{"alpha", alpha}}).output.weights;
        for (const double unit : {1e-30, 1e-18, 1e18, 1e30}) {
            Rows scaled = rows;
            for (Row& row : scaled) {
                for (double& x : row) x *= unit;
            }
            CAPTURE(alpha, unit);
            const DenseResult found = run("fairgrad", scaled, {{"alpha", alpha}});
            REQUIRE(found.output.status == AggregatorStatus::ok);
            REQUIRE(found.output.weights[0] / found.output.weights[1] ==
                    Approx(one[0] / one[1]).epsilon(1e-9));
        }
    }
}

TEST_CASE("nash: opposite gradients have no bargain, and the weights are MGDA's") {
    for (const std::string name : {"nash", "fairgrad"}) {
        const DenseResult result = run(name, {{2, 0}, {-1, 0}});
        REQUIRE(result.output.status == AggregatorStatus::degenerate);
        test::require_near(result.output.weights, {1.0 / 3, 2.0 / 3}, 1e-12);
        test::require_near(result.result, {0, 0}, 1e-12);
    }
}

TEST_CASE("nash: a zero gradient leaves the others their bargain") {
    const DenseResult with = run("nash", {{-4, 1, 1}, {0, 0, 0}, {6, 1, 1}});
    const DenseResult without = run("nash", {{-4, 1, 1}, {6, 1, 1}});
    REQUIRE(with.output.status == AggregatorStatus::degenerate);
    REQUIRE(with.output.weights[1] == 0);
    test::require_near(with.result, without.result, 1e-12);
}

TEST_CASE("imtl_g: every unit gradient has the same projection of the result") {
    Random random(random_key(10, Purpose::test));
    for (int trial = 0; trial < 40; ++trial) {
        const std::size_t tasks = 2 + random.below(6);
        const Rows rows = reference::random_rows(random, tasks, tasks + 2, tasks);
        const DenseResult result = run("imtl_g", rows);
        double sum = 0;
        for (const double w : result.output.weights) sum += w;
        REQUIRE(sum == Approx(1).epsilon(1e-10));
        const double first = reference::dot(rows[0], result.result) / test::length(rows[0]);
        for (const Row& row : rows) {
            REQUIRE(reference::dot(row, result.result) / test::length(row) ==
                    Approx(first).epsilon(1e-7));
        }
    }
}

TEST_CASE("imtl_g: dependent gradients take the least-squares solution") {
    // G = [[1,2],[2,4]]: G⁺ = G/25, √diag = (1,2), v = (1,2)/5.
    const DenseResult result = run("imtl_g", {{1, 0}, {2, 0}});
    REQUIRE(result.output.status == AggregatorStatus::degenerate);
    test::require_near(result.output.weights, {1.0 / 3, 2.0 / 3}, 1e-12);
}

TEST_CASE("imtl_g: a zero gradient leaves a short one its weight") {
    const DenseResult result = run("imtl_g", {{1, 0, 0}, {0, 1e-9, 0}, {0, 0, 0}});
    REQUIRE(result.output.status == AggregatorStatus::degenerate);
    REQUIRE(result.output.weights[0] == Approx(1e-9).epsilon(1e-6));
    REQUIRE(result.output.weights[1] == Approx(1).epsilon(1e-6));
    REQUIRE(result.output.weights[2] == 0);
}

TEST_CASE("aligned: a short gradient keeps its component") {
    const DenseResult result = run("aligned", {{1, 0}, {0, 1e-9}});
    REQUIRE(result.output.status == AggregatorStatus::ok);
    REQUIRE(result.output.weights[0] == Approx(5e-10).epsilon(1e-9));
    REQUIRE(result.output.weights[1] == Approx(0.5).epsilon(1e-9));
}

TEST_CASE("aligned: says so where a short gradient cannot be told from the rounding of others") {
    const auto status_of = [](const Rows& rows) { return run("aligned", rows).output.status; };
    REQUIRE(status_of({{1, 0}, {1, 0}, {0, 1e-9}}) == AggregatorStatus::degenerate);
    REQUIRE(status_of({{1, 0}, {1, 0}, {0, 1e-3}}) == AggregatorStatus::ok);
    REQUIRE(status_of({{1, 0}, {1, 0}, {0, 0}}) == AggregatorStatus::ok);
}

TEST_CASE("aligned: is the inverse root of G, scaled by each measure of its eigenvalues") {
    Random random(random_key(11, Purpose::test));
    for (int trial = 0; trial < 20; ++trial) {
        const std::size_t tasks = 2 + random.below(5);
        const Rows rows = reference::random_rows(random, tasks, tasks + 3, tasks);
        const Gramian g = reference::gramian_of(rows);
        reference::Matrix m(tasks, std::vector<double>(tasks));
        for (std::size_t i = 0; i < tasks; ++i) {
            for (std::size_t j = 0; j < tasks; ++j) m[i][j] = g.at(i, j);
        }
        const reference::Matrix root = reference::inverse_root(m);
        double trace = 0;
        for (std::size_t i = 0; i < tasks; ++i) trace += m[i][i];
        const std::vector<std::pair<std::string, double>> measures = {
            {"min", reference::eigenvalue(g, 0)},
            {"median", reference::eigenvalue(g, (tasks - 1) / 2)},
            {"rmse", trace / static_cast<double>(tasks)}};
        for (const auto& [scale, lambda] : measures) {
            CAPTURE(tasks, trial, scale);
            std::vector<double> expected(tasks, 0.0);
            for (std::size_t i = 0; i < tasks; ++i) {
                for (std::size_t j = 0; j < tasks; ++j) {
                    expected[i] += std::sqrt(lambda) * root[i][j] / static_cast<double>(tasks);
                }
            }
            test::require_near(run("aligned", rows, {{"scale", scale}}).output.weights, expected,
                               1e-7);
        }
    }
}

TEST_CASE("aligned: orthogonal rows of lengths 3, 2, 1 become equally long") {
    const Rows rows = {{3, 0, 0}, {0, 2, 0}, {0, 0, 1}};
    test::require_near(run("aligned", rows).result, {1.0 / 3, 1.0 / 3, 1.0 / 3}, 1e-14);
    test::require_near(run("aligned", rows, {{"scale", "median"}}).result,
                       {2.0 / 3, 2.0 / 3, 2.0 / 3}, 1e-14);
    const double rmse = std::sqrt(14.0 / 3) / 3;
    test::require_near(run("aligned", rows, {{"scale", "rmse"}}).result, {rmse, rmse, rmse}, 1e-14);
}

TEST_CASE("aligned: the median of four is the lower one in the middle") {
    const Rows rows = {{4, 0, 0, 0}, {0, 3, 0, 0}, {0, 0, 2, 0}, {0, 0, 0, 1}};
    test::require_near(run("aligned", rows, {{"scale", "median"}}).result, {0.5, 0.5, 0.5, 0.5},
                       1e-14);
}

TEST_CASE("config: is the paper's pseudo-inverse on the rows, for any rank") {
    Random random(random_key(12, Purpose::test));
    for (int trial = 0; trial < 30; ++trial) {
        const std::size_t tasks = 2 + random.below(4);
        const std::size_t rank = 1 + random.below(tasks);
        const Rows rows = reference::random_rows(random, tasks, 8, rank);
        CAPTURE(tasks, rank, trial);
        // The ridge's error is proportional to it: two of them give the limit.
        const double ridge = rank == tasks ? 0 : 1e-6;
        Row expected = reference::config(rows, ridge);
        if (rank < tasks) {
            const Row twice = reference::config(rows, 2 * ridge);
            for (std::size_t k = 0; k < expected.size(); ++k) {
                expected[k] = 2 * expected[k] - twice[k];
            }
        }
        const double size = test::length(expected) + test::longest(rows);
        const DenseResult found = run("config", rows);
        if (found.output.status != AggregatorStatus::ok) {  // opposite rows cancel
            REQUIRE(rank < tasks);
            REQUIRE(test::length(found.result) == 0);
            continue;
        }
        test::require_near(found.result, expected, (rank == tasks ? 1e-8 : 1e-4) * size);
    }
}

TEST_CASE("config: every unit gradient has the same positive product with the result") {
    Random random(random_key(13, Purpose::test));
    const Rows rows = reference::random_rows(random, 5, 9, 5, {1, 10, 0.1, 3, 100});
    const Row result = run("config", rows).result;
    const double first = reference::dot(rows[0], result) / test::length(rows[0]);
    REQUIRE(first * reference::dot(rows[0], result) > 0);
    for (const Row& row : rows) {
        REQUIRE(reference::dot(row, result) / test::length(row) == Approx(first).epsilon(1e-9));
    }
}

}  // namespace detente
