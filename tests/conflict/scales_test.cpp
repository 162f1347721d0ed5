// Gradients of very different length beside each other, and all of them very long or short: what
// methods owe to directions must not depend on it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"
#include "tests/reference/qp_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::made;
using test::require_near;
using test::run;

// Independent rows of length about √(T + 3), and what they are multiplied by: 1e12 and 1e-12 are
// always among it.
struct Stretched {
    Stretched(Random& random, std::size_t tasks)
        : even(reference::random_rows(random, tasks, tasks + 3, tasks)), by(tasks), rows(even) {
        const double lengths[] = {1e12, 1e-12, 1};
        for (std::size_t i = 0; i < tasks; ++i) {
            by[i] = lengths[i < 2 ? i : random.below(3)];
            for (double& x : rows[i]) x *= by[i];
        }
    }
    // The result as a combination of the even rows.
    std::vector<double> of_even(std::vector<double> weights) const {
        for (std::size_t i = 0; i < weights.size(); ++i) weights[i] *= by[i];
        return weights;
    }
    Rows even;
    std::vector<double> by;
    Rows rows;
};

std::vector<Stretched> stretched_problems(std::uint64_t seed) {
    Random random(random_key(seed, Purpose::test));
    std::vector<Stretched> all;
    for (const std::size_t tasks : {2, 3, 5}) {
        for (int trial = 0; trial < 8; ++trial) all.emplace_back(random, tasks);
    }
    return all;
}

std::vector<double> unit_of(std::vector<double> v) {
    const double size = test::length(v);
    for (double& x : v) x /= size;
    return v;
}

// What each task's gradient becomes by surgery in the order 0, 1, …, as a combination of the rows.
std::vector<std::vector<double>> surgery_of(const Rows& rows) {
    std::vector<std::vector<double>> all;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        std::vector<double> c(rows.size(), 0.0);
        Row g = rows[i];
        c[i] = 1;
        for (std::size_t j = 0; j < rows.size(); ++j) {
            const double along = reference::dot(g, rows[j]) / reference::dot(rows[j], rows[j]);
            if (j == i || along >= 0) continue;
            c[j] -= along;
            for (std::size_t k = 0; k < g.size(); ++k) g[k] -= along * rows[j][k];
        }
        all.push_back(c);
    }
    return all;
}

// The same for the cone's projections.
std::vector<std::vector<double>> projections_of(const Rows& rows) {
    const Gramian g = reference::gramian_of(rows);
    std::vector<std::vector<double>> all;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        std::vector<double> lower(rows.size(), 0.0);
        lower[i] = 1;
        all.push_back(reference::least_quadratic(g, lower, false));
    }
    return all;
}

// What of a row is at right angles to all the others.
Row beyond_others(const Rows& rows, std::size_t own) {
    Rows basis;  // orthonormal, of the others
    const auto beyond_basis = [&](Row row) {
        for (int again = 0; again < 2; ++again) {  // the second takes the first's rounding away
            for (const Row& unit : basis) {
                const double along = reference::dot(unit, row);
                for (std::size_t k = 0; k < row.size(); ++k) row[k] -= along * unit[k];
            }
        }
        return row;
    };
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i != own) basis.push_back(unit_of(beyond_basis(rows[i])));
    }
    return beyond_basis(rows[own]);
}

std::string ascending_visits(std::size_t tasks) {
    std::string text;
    for (std::size_t i = 0; i < tasks; ++i) {
        if (i > 0) text += ';';
        for (std::size_t j = 0; j < tasks; ++j) text += (j > 0 ? "," : "") + std::to_string(j);
    }
    return text;
}

}  // namespace

TEST_CASE("scales: every method of the Gramian is at ease with 1e12 beside 1e-12 over steps") {
    Random random(random_key(1, Purpose::test));
    const std::set<std::string> on_simplex = {"mgda", "sdmgrad", "modo", "moco", "krum"};
    for (const std::string& name : aggregator_names()) {
        if (!made(name)->needs().gramian) continue;
        for (const std::size_t tasks : {2, 3, 5}) {
            if (tasks < test::least_tasks(name)) continue;
            for (int trial = 0; trial < 4; ++trial) {
                CAPTURE(name, tasks, trial);
                DenseAggregation aggregation(made(name), 3);
                for (int step = 0; step < 3; ++step) {
                    const Stretched problem(random, tasks);
                    const auto found = aggregation.step(test::step_of(problem.rows));
                    REQUIRE(found.has_value());
                    double sum = 0;
                    for (const double w : found->output.weights) {
                        REQUIRE(std::isfinite(w));
                        if (on_simplex.contains(name)) REQUIRE(w >= 0);
                        sum += w;
                    }
                    for (const double x : found->result) REQUIRE(std::isfinite(x));
                    if (on_simplex.contains(name)) REQUIRE(sum == Approx(1).epsilon(1e-12));
                    // The rows are independent. (Of three, krum's two nearest tie.)
                    if (name == "krum") continue;
                    REQUIRE(found->output.status == AggregatorStatus::ok);
                }
            }
        }
    }
}

TEST_CASE("scales: a power of two in all gradients moves no bit of a weight") {
    Random random(random_key(2, Purpose::test));
    for (const std::string name : {"pcgrad", "gradvac", "mgda", "cagrad", "imtl_g", "aligned",
                                   "dualproj", "upgrad", "config", "db_mtl", "krum"}) {
        for (const std::size_t tasks : {3, 6}) {
            for (const std::size_t rank : {std::size_t{1}, (tasks + 1) / 2, tasks}) {
                for (const std::size_t elements : {std::size_t{2}, tasks + 3}) {
                    CAPTURE(name, tasks, rank, elements);
                    const Rows rows = reference::random_rows(random, tasks, elements, rank);
                    const AggregatorOutput expected = run(name, rows).output;
                    for (const double scale : {0x1p-40, 0x1p40}) {  // about 1e-12 and 1e12
                        Rows scaled = rows;
                        for (Row& row : scaled) {
                            for (double& x : row) x *= scale;
                        }
                        const AggregatorOutput found = run(name, scaled).output;
                        REQUIRE(found.weights == expected.weights);
                        REQUIRE(found.status == expected.status);
                    }
                }
            }
        }
    }
}

TEST_CASE("scales: nash's result is of directions alone") {
    for (const Stretched& problem : stretched_problems(3)) {
        CAPTURE(problem.by);
        // G·α = 1/α: what a row is multiplied by divides its weight.
        const DenseResult expected = run("nash", problem.even);
        const DenseResult found = run("nash", problem.rows);
        const std::vector<double> weights = problem.of_even(found.output.weights);
        for (std::size_t i = 0; i < weights.size(); ++i) {
            REQUIRE(weights[i] == Approx(expected.output.weights[i]).epsilon(1e-11));
        }
        REQUIRE(*found.output.kkt_residual <= 1e-10);
        require_near(found.result, expected.result, 1e-11 * test::length(expected.result));
    }
}

TEST_CASE("scales: the direction of imtl_g config and db_mtl is of directions alone") {
    for (const Stretched& problem : stretched_problems(4)) {
        const std::vector<double> losses(problem.by.size(), 1.0);
        for (const std::string name : {"imtl_g", "config", "db_mtl"}) {
            CAPTURE(name, problem.by);
            const auto expected = unit_of(run(name, problem.even, {}, losses).output.weights);
            auto found =
                unit_of(problem.of_even(run(name, problem.rows, {}, losses).output.weights));
            // The sum by which imtl_g divides may have another sign.
            double same = 0;
            for (std::size_t i = 0; i < found.size(); ++i) same += found[i] * expected[i];
            if (same < 0 && name == "imtl_g") {
                for (double& x : found) x = -x;
            }
            require_near(found, expected, 1e-11);
        }
    }
}

TEST_CASE("scales: surgery and upgrad are linear in lengths down to the shortest row") {
    for (const Stretched& problem : stretched_problems(5)) {
        const std::size_t tasks = problem.by.size();
        const auto surgery = surgery_of(problem.even);
        const auto projections = projections_of(problem.even);
        const std::string visits = ascending_visits(tasks);
        for (const std::string name : {"pcgrad", "gradvac", "upgrad"}) {
            CAPTURE(name, problem.by);
            // gradvac's first step has targets of 0, and is pcgrad's.
            const auto& of_each = name == "upgrad" ? projections : surgery;
            const auto parameters =
                name == "upgrad" ? test::ParameterTexts{} : test::ParameterTexts{{"order", visits}};
            const double share = name == "upgrad" ? 1.0 / static_cast<double>(tasks) : 1.0;
            const std::vector<double> found =
                problem.of_even(run(name, problem.rows, parameters).output.weights);
            for (std::size_t k = 0; k < tasks; ++k) {
                double expected = 0;
                double terms = 0;
                for (std::size_t i = 0; i < tasks; ++i) {
                    expected += share * problem.by[i] * of_each[i][k];
                    terms += share * problem.by[i] * std::abs(of_each[i][k]);
                }
                REQUIRE(found[k] == Approx(expected).margin(1e-10 * terms).epsilon(0));
            }
        }
    }
}

TEST_CASE("scales: mgda dualproj and upgrad oppose no gradient however short it is") {
    for (const Stretched& problem : stretched_problems(6)) {
        for (const std::string name : {"mgda", "dualproj", "upgrad"}) {
            CAPTURE(name, problem.by);
            const DenseResult found = run(name, problem.rows);
            REQUIRE(*found.output.kkt_residual <= 1e-10);
            const double size = test::length(found.result);
            for (const Row& row : problem.rows) {
                // By the angle, and not beside the longest.
                REQUIRE(reference::dot(row, found.result) >= -1e-12 * test::length(row) * size);
            }
        }
    }
}

TEST_CASE("scales: cagrad's result is on its ball around a mean that is the longest's") {
    for (const Stretched& problem : stretched_problems(7)) {
        CAPTURE(problem.by);
        const DenseResult found = run("cagrad", problem.rows);
        REQUIRE(*found.output.kkt_residual <= 1e-10);
        const Row mean = run("mean", problem.rows).result;
        Row away = found.result;
        for (std::size_t k = 0; k < away.size(); ++k) away[k] -= mean[k];
        REQUIRE(test::length(away) == Approx(0.5 * test::length(mean)).epsilon(1e-11));
    }
}

TEST_CASE("scales: fairgrad's equations hold but for the rounding of their own terms") {
    for (const Stretched& problem : stretched_problems(8)) {
        for (const std::string alpha : {"0.2", "0.5", "1", "2", "5", "100"}) {
            CAPTURE(alpha, problem.by);
            const DenseResult found = run("fairgrad", problem.rows, {{"alpha", alpha}});
            REQUIRE(found.output.status == AggregatorStatus::ok);
            const std::vector<double>& w = found.output.weights;
            for (std::size_t i = 0; i < w.size(); ++i) {
                REQUIRE(w[i] >= 0);
                double gain = 0;
                double terms = 0;
                for (std::size_t j = 0; j < w.size(); ++j) {
                    gain += found.gramian.at(i, j) * w[j];
                    terms += std::abs(found.gramian.at(i, j)) * w[j];
                }
                REQUIRE(gain > -1e-14 * terms);
                if (w[i] < 1e-200) continue;  // served by the others
                const double wanted = std::pow(w[i], -1 / std::stod(alpha));
                REQUIRE(std::abs(gain - wanted) <= 1e-9 * wanted + 1e-14 * terms);
            }
        }
    }
}

TEST_CASE("scales: aligned makes all components as short as what is new in one short gradient") {
    Random random(random_key(9, Purpose::test));
    for (const std::size_t tasks : {2, 3, 5}) {
        for (int trial = 0; trial < 8; ++trial) {
            CAPTURE(tasks, trial);
            Rows rows = reference::random_rows(random, tasks, tasks + 3, tasks);
            const std::size_t shortest = trial % tasks;
            const Row left = beyond_others(rows, shortest);
            for (std::size_t i = 0; i < tasks; ++i) {
                for (double& x : rows[i]) x *= i == shortest ? 1e-12 : 1e12;
            }
            const DenseResult found = run("aligned", rows);
            REQUIRE(found.output.status == AggregatorStatus::ok);
            // The least eigenvalue's vector is the short one's own to 1e-24: √λ*·VΛ^(−½)Vᵀb has its
            // share of b there, and all T components of the mean have that length.
            const auto n = static_cast<double>(tasks);
            REQUIRE(found.output.weights[shortest] == Approx(1 / n).epsilon(1e-10));
            REQUIRE(test::length(found.result) ==
                    Approx(1e-12 * test::length(left) / std::sqrt(n)).epsilon(1e-10));
        }
    }
}

}  // namespace detente
