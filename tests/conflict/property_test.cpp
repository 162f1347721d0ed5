// What holds of many methods at once, over shapes, ranks and scales.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"
#include "tests/reference/conflict_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::made;
using test::run;

struct Shape {
    std::size_t tasks;
    std::size_t elements;
    std::size_t rank;
    double scale;
    bool mixed;  // rows of very different length
};

// 2 to 16 tasks, ranks from 1 to full, fewer coordinates than tasks too.
std::vector<Shape> shapes() {
    std::vector<Shape> all;
    for (const std::size_t tasks : {2, 3, 4, 6, 9, 16}) {
        for (const std::size_t rank : {std::size_t{1}, (tasks + 1) / 2, tasks}) {
            for (const double scale : {1e-12, 1.0, 1e12}) {
                all.push_back({tasks, tasks + 3, rank, scale, false});
            }
        }
        all.push_back({tasks, tasks + 1, tasks, 1.0, true});
        all.push_back({tasks, (tasks + 1) / 2, tasks, 1.0, false});
    }
    return all;
}

Rows rows_of(const Shape& shape, Random& random) {
    std::vector<double> scales(shape.tasks, shape.scale);
    for (double& s : scales) s *= shape.mixed ? std::pow(10.0, 6 * random.uniform() - 3) : 1.0;
    return reference::random_rows(random, shape.tasks, shape.elements,
                                  std::min(shape.rank, shape.tasks), scales);
}

// A reflection along a random normal vector, then another: a rotation.
struct Rotation {
    Rotation(Random& random, std::size_t elements) : axes(2, Row(elements)) {
        for (Row& axis : axes) {
            for (double& x : axis) x = random.normal();
        }
    }
    Rows of(Rows rows) const {
        for (const Row& axis : axes) {
            const double square = reference::dot(axis, axis);
            for (Row& row : rows) {
                const double along = 2 * reference::dot(axis, row) / square;
                for (std::size_t k = 0; k < row.size(); ++k) row[k] -= along * axis[k];
            }
        }
        return rows;
    }
    Rows axes;
};

Rows rotated(const Rows& rows, Random& random) { return Rotation(random, rows[0].size()).of(rows); }

bool by_rows(const std::string& name) {  // not by the Gramian alone
    const AggregatorNeeds needs = made(name)->needs();
    return needs.coordinates || needs.excess;
}

// Independent rows: some direction improves every task.
bool surely_solvable(const Shape& shape) {
    return shape.rank >= shape.tasks && shape.elements >= shape.tasks;
}

// Where dependent rows leave the weights open, results are what can be compared.
double margin_of(const Rows& rows) { return 1e-7 * test::longest(rows); }

// Rows that depend on each other but for `apart`: each of the second half nearly one of the first
// or its opposite; all of them mixtures of a few; the second half turned round; hardly a mean.
Rows nearly_dependent(Random& random, std::size_t tasks, int kind, double apart) {
    const std::size_t elements = tasks + 4;
    Rows rows = reference::random_rows(random, tasks, elements, tasks);
    const std::size_t half = (tasks + 1) / 2;
    const Rows few = reference::random_rows(random, tasks, elements, half);
    for (std::size_t k = 0; k < elements; ++k) {
        double mean = 0;
        for (const Row& row : rows) mean += row[k] / static_cast<double>(tasks);
        for (std::size_t i = 0; i < tasks; ++i) {
            const double sign = i % 3 == 0 ? 1 : -1;
            double& own = rows[i][k];
            if (kind == 0 && i >= half) own = sign * rows[i * 7 % half][k] + apart * own;
            if (kind == 1) own = few[i][k] + apart * own;
            if (kind == 2 && i >= half) own = apart * own - rows[i - half][k];
            if (kind == 3) own -= (1 - apart) * mean;
        }
    }
    return rows;
}

// How much more than 1e-10 rounding leaves of nash's equations: fair_point.h.
double rounding_of_bargain(const Gramian& g, const std::vector<double>& alpha) {
    double most = 0;
    for (std::size_t i = 0; i < g.tasks(); ++i) {
        double gain = 0;
        double terms = 0;
        for (std::size_t j = 0; j < g.tasks(); ++j) {
            gain += g.at(i, j) * alpha[j];
            terms += std::abs(g.at(i, j)) * alpha[j];
        }
        most = std::max(most, terms / std::abs(gain));
    }
    return 2e-16 * static_cast<double>(g.tasks()) * most;
}

}  // namespace

TEST_CASE("properties: a rotation of J rotates the result and moves no weight") {
    Random random(random_key(1, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        if (by_rows(name)) continue;
        for (const Shape& shape : shapes()) {
            if (shape.tasks < test::least_tasks(name)) continue;
            CAPTURE(name, shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
            const Rotation rotation(random, shape.elements);
            DenseAggregation straight(made(name), 7);
            DenseAggregation turned(made(name), 7);
            for (int step = 0; step < 2; ++step) {
                const Rows rows = rows_of(shape, random);
                const auto expected = straight.step(test::step_of(rows));
                const auto found = turned.step(test::step_of(rotation.of(rows)));
                REQUIRE(expected.has_value());
                REQUIRE(found.has_value());
                REQUIRE(found->output.status == expected->output.status);
                // A rotation rounds each row by some 1e-15 of it. Independent rows make of that no
                // more than a hundredfold. Dependent ones may have weights of 1e5 that cancel
                // (dualproj), or a cosine of 1 less rounding, whose sine is the rounding's root
                // (gradvac, by its share of .01 in a target); of their weights only the result is
                // unique.
                const bool independent = surely_solvable(shape);
                const double size = std::max(test::length(expected->result), test::longest(rows));
                test::require_near(found->result, rotation.of({expected->result})[0],
                                   (independent ? 1e-11 : 1e-8) * size);
                if (!independent) continue;
                double largest = 0;
                for (const double w : expected->output.weights) {
                    largest = std::max(largest, std::abs(w));
                }
                test::require_near(found->output.weights, expected->output.weights,
                                   1e-11 * largest);
            }
        }
    }
}

TEST_CASE("properties: permuting tasks permutes what comes out") {
    Random random(random_key(2, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        // Draws per task are by place: rlw's weights stay (below), and the visits of pcgrad and
        // gradvac are permuted in tests of their own.
        if (name == "rlw" || name == "pcgrad" || name == "gradvac") continue;
        for (const Shape& shape : shapes()) {
            if (shape.tasks < test::least_tasks(name)) continue;
            CAPTURE(name, shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
            const Rows rows = rows_of(shape, random);
            const auto order = permutation(random.bits(), static_cast<std::uint32_t>(shape.tasks));
            DenseStep straight = test::step_of(rows);
            DenseStep moved;
            for (const std::uint32_t i : order) {
                moved.rows.push_back(rows[i]);
                moved.second.push_back(rows[i]);
                moved.losses.push_back(straight.losses[i]);
            }
            DenseAggregation first(made(name), 7);
            DenseAggregation second(made(name), 7);
            for (int step = 0; step < 2; ++step) {
                const auto expected = first.step(straight);
                const auto found = second.step(moved);
                REQUIRE(expected.has_value());
                REQUIRE(found.has_value());
                // Equal scores go by place, and two nearest to each other have them.
                if (name == "krum" && expected->output.status != AggregatorStatus::ok) break;
                const double size = std::max(test::length(expected->result), test::longest(rows));
                // IMTL-G divides by a sum that may be nearly zero.
                const double margin = name == "imtl_g" ? 1e-5 * size : 1e-7 * size;
                test::require_near(found->result, expected->result, margin);
                REQUIRE(found->output.status == expected->output.status);
            }
        }
    }
}

TEST_CASE("properties: rlw draws for a place and not for the gradient that is there") {
    Random random(random_key(12, Purpose::test));
    for (const Shape& shape : shapes()) {
        CAPTURE(shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
        const Rows rows = rows_of(shape, random);
        Rows moved;
        for (const std::uint32_t i :
             permutation(random.bits(), static_cast<std::uint32_t>(shape.tasks))) {
            moved.push_back(rows[i]);
        }
        DenseAggregation straight(made("rlw"), 7);
        DenseAggregation permuted(made("rlw"), 7);
        for (int step = 0; step < 3; ++step) {
            const auto expected = straight.step(test::step_of(rows));
            const auto found = permuted.step(test::step_of(moved));
            const std::vector<double>& w = found->output.weights;
            REQUIRE(w == expected->output.weights);
            double sum = 0;
            for (const double x : w) {
                REQUIRE(x > 0);
                sum += x;
            }
            REQUIRE(sum == Approx(1).epsilon(1e-14));
            test::require_near(found->result, reference::combined(w, moved),
                               1e-14 * test::longest(rows));
        }
    }
}

TEST_CASE("properties: rlw's places are drawn alike and independently of each other") {
    // Logarithms of ratios are differences of independent normal draws: mean 0, variance 2, and 1
    // in common where they share a place.
    constexpr int kSteps = 4000;
    constexpr std::size_t kPlaces = 4;
    DenseAggregation rlw(made("rlw"), 3);
    const Rows rows(kPlaces, Row{1});
    std::vector<std::vector<double>> logs(kPlaces);
    for (int step = 0; step < kSteps; ++step) {
        const std::vector<double> w = rlw.step(test::step_of(rows))->output.weights;
        for (std::size_t i = 0; i < kPlaces; ++i) logs[i].push_back(std::log(w[i]));
    }
    // Of log w[i]/w[j] times log w[i]/w[k].
    const auto product = [&](std::size_t i, std::size_t j, std::size_t k) {
        double sum = 0;
        for (int s = 0; s < kSteps; ++s) {
            sum += (logs[i][s] - logs[j][s]) * (logs[i][s] - logs[k][s]);
        }
        return sum / kSteps;
    };
    for (std::size_t i = 0; i < kPlaces; ++i) {
        for (std::size_t j = 0; j < kPlaces; ++j) {
            if (j == i) continue;
            CAPTURE(i, j);
            double mean = 0;
            for (int s = 0; s < kSteps; ++s) mean += (logs[i][s] - logs[j][s]) / kSteps;
            // Five deviations each: √2/√n, √8/√n, √5/√n.
            REQUIRE(mean == Approx(0).margin(0.112));
            REQUIRE(product(i, j, j) == Approx(2).margin(0.224));
            for (std::size_t k = 0; k < kPlaces; ++k) {
                if (k == i || k == j) continue;
                REQUIRE(product(i, j, k) == Approx(1).margin(0.177));
            }
        }
    }
}

TEST_CASE("properties: mgda dualproj upgrad oppose no task") {
    Random random(random_key(3, Purpose::test));
    for (const std::string name : {"mgda", "dualproj", "upgrad"}) {
        for (const Shape& shape : shapes()) {
            CAPTURE(name, shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
            const Rows rows = rows_of(shape, random);
            const DenseResult result = run(name, rows);
            const double longest = test::longest(rows);
            for (const Row& row : rows) {
                REQUIRE(reference::dot(row, result.result) >=
                        -1e-10 * longest * std::max(longest, test::length(result.result)));
            }
        }
    }
}

TEST_CASE("properties: programs are solved to 1e-10 of the largest entry at any rank and scale") {
    Random random(random_key(4, Purpose::test));
    for (const std::string name : {"mgda", "cagrad", "dualproj", "upgrad"}) {
        for (const Shape& shape : shapes()) {
            CAPTURE(name, shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
            for (int trial = 0; trial < 4; ++trial) {
                const DenseResult result = run(name, rows_of(shape, random));
                REQUIRE(result.output.kkt_residual.has_value());
                REQUIRE(*result.output.kkt_residual <= 1e-10);
            }
        }
    }
}

TEST_CASE("properties: ok means that the equations are solved however nearly rows are dependent") {
    for (const std::string name : {"mgda", "cagrad", "dualproj", "upgrad", "nash", "fairgrad"}) {
        int solved = 0;
        for (std::uint64_t seed = 0; seed < 400; ++seed) {
            Random random(random_key(seed, Purpose::test));
            const std::size_t tasks = 3 + random.below(30);
            const double apart = std::pow(10.0, -2 - 14 * random.uniform());
            const Rows rows = nearly_dependent(random, tasks, static_cast<int>(seed % 4), apart);
            const AggregatorOutput output = run(name, rows).output;
            CAPTURE(name, seed, tasks, apart, output.kkt_residual.value_or(0));
            // Whatever the status: no weights that rounding has made.
            for (const double w : output.weights) REQUIRE(std::abs(w) <= 1e8);
            if (output.status != AggregatorStatus::ok) continue;
            ++solved;
            const bool bargain = name == "nash" || name == "fairgrad";
            const double rounding =
                bargain ? rounding_of_bargain(reference::gramian_of(rows), output.weights) : 0;
            REQUIRE(output.kkt_residual.has_value());
            REQUIRE(*output.kkt_residual <= 1e-10 + rounding);
        }
        CAPTURE(name);
        REQUIRE(solved >= 100);
    }
}

TEST_CASE("properties: nash and fairgrad solve their equations wherever there is a solution") {
    Random random(random_key(5, Purpose::test));
    for (const std::string alpha : {"0.05", "0.2", "0.5", "1", "2", "5", "100"}) {
        for (const Shape& shape : shapes()) {
            CAPTURE(alpha, shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
            const Rows rows = rows_of(shape, random);
            const DenseResult result = run("fairgrad", rows, {{"alpha", alpha}});
            if (surely_solvable(shape)) {
                REQUIRE(result.output.status == AggregatorStatus::ok);
                REQUIRE(run("nash", rows).output.status == AggregatorStatus::ok);
            }
            if (result.output.status != AggregatorStatus::ok) continue;
            const double a = std::stod(alpha);
            // Elsewhere some gains may lie far below the rounding of their terms.
            if (a >= 0.2 && !shape.mixed) REQUIRE(*result.output.kkt_residual <= 1e-10);
            const std::vector<double>& w = result.output.weights;
            for (std::size_t i = 0; i < w.size(); ++i) {
                REQUIRE(w[i] >= 0);
                double gain = 0;
                double terms = 0;
                for (std::size_t j = 0; j < w.size(); ++j) {
                    gain += result.gramian.at(i, j) * w[j];
                    terms += std::abs(result.gramian.at(i, j)) * w[j];
                }
                REQUIRE(gain > -1e-14 * terms);
                if (w[i] < 1e-200) continue;  // served by the others
                const double wanted = std::pow(w[i], -1 / a);
                REQUIRE(std::abs(gain - wanted) <= 1e-9 * wanted + 1e-14 * terms);
            }
        }
    }
}

TEST_CASE("properties: lengths from 1e-9 to 1e9 leave orthogonal gradients their weights") {
    Random random(random_key(10, Purpose::test));
    for (const std::size_t tasks : {2, 3, 5, 8}) {
        for (int trial = 0; trial < 10; ++trial) {
            Row lengths(tasks);
            Rows straight(tasks, Row(tasks, 0.0));
            for (std::size_t i = 0; i < tasks; ++i) {
                lengths[i] = straight[i][i] = std::pow(10.0, 18 * random.uniform() - 9);
            }
            const Rows rows = rotated(straight, random);
            Row sorted = lengths;
            std::sort(sorted.begin(), sorted.end());
            const auto n = static_cast<double>(tasks);
            double mean = 0;
            double inverses = 0;
            for (const double length : lengths) {
                mean += length * length / n;
                inverses += 1 / length;
            }
            // Components are the gradients themselves: of each remains its direction.
            const std::vector<std::pair<std::string, double>> scales = {
                {"min", sorted.front()},
                {"median", sorted[(tasks - 1) / 2]},
                {"rmse", std::sqrt(mean)}};
            for (const auto& [scale, length] : scales) {
                CAPTURE(tasks, trial, scale);
                const DenseResult aligned = run("aligned", rows, {{"scale", scale}});
                REQUIRE(aligned.output.status == AggregatorStatus::ok);
                for (std::size_t i = 0; i < tasks; ++i) {
                    REQUIRE(aligned.output.weights[i] * lengths[i] ==
                            Approx(length / n).epsilon(1e-9));
                }
            }
            const DenseResult impartial = run("imtl_g", rows);
            REQUIRE(impartial.output.status == AggregatorStatus::ok);
            const DenseResult config = run("config", rows);
            for (std::size_t i = 0; i < tasks; ++i) {
                REQUIRE(impartial.output.weights[i] * lengths[i] ==
                        Approx(1 / inverses).epsilon(1e-9));
                REQUIRE(config.output.weights[i] * lengths[i] ==
                        Approx(config.output.weights[0] * lengths[0]).epsilon(1e-9));
            }
        }
    }
}

TEST_CASE("properties: aligned is the closed form of two gradients at any lengths") {
    Random random(random_key(11, Purpose::test));
    for (int trial = 0; trial < 200; ++trial) {
        const double a = std::pow(10.0, 18 * random.uniform() - 9);
        const double b = std::pow(10.0, 18 * random.uniform() - 9);
        const double cosine = 1.8 * random.uniform() - 0.9;
        const double sine = std::sqrt(1 - cosine * cosine);
        CAPTURE(a, b, cosine);
        const DenseResult found = run("aligned", {{a, 0}, {b * cosine, b * sine}});
        REQUIRE(found.output.status == AggregatorStatus::ok);
        // G^(1/2) = (G + sI)/t with s = √det G, t = √(tr G + 2s); so its inverse is t·(G + sI)⁻¹.
        const double s = a * b * sine;
        const double trace = a * a + b * b;
        const double t = std::sqrt(trace + 2 * s);
        const double product = a * b * cosine;
        const double least = 2 * s * s / (trace + std::hypot(a * a - b * b, 2 * product));
        const double factor = std::sqrt(least) * t / (2 * s * s + s * trace) / 2;
        const double first = factor * (b * b + s - product) * a;
        const double second = factor * (a * a + s - product) * b;
        const double margin = 1e-9 * std::max(std::abs(first), std::abs(second));
        REQUIRE(found.output.weights[0] * a == Approx(first).margin(margin).epsilon(0));
        REQUIRE(found.output.weights[1] * b == Approx(second).margin(margin).epsilon(0));
    }
}

TEST_CASE("properties: upgrad is linear under scaling of the rows") {
    Random random(random_key(6, Purpose::test));
    for (const Shape& shape : shapes()) {
        CAPTURE(shape.tasks, shape.elements, shape.rank, shape.scale, shape.mixed);
        const Rows rows = rows_of(shape, random);
        // A(diag(c)·J) = Σ cᵢ·A(diag(eᵢ)-part of J): sums of two scalings give sums of results.
        std::vector<double> first(shape.tasks);
        std::vector<double> second(shape.tasks);
        const auto scaled = [&](const std::vector<double>& by) {
            Rows out = rows;
            for (std::size_t i = 0; i < rows.size(); ++i) {
                for (double& x : out[i]) x *= by[i];
            }
            return run("upgrad", out).result;
        };
        std::vector<double> both(shape.tasks);
        for (std::size_t i = 0; i < shape.tasks; ++i) {
            first[i] = 0.2 + random.uniform();
            second[i] = 0.2 + 3 * random.uniform();
            both[i] = first[i] + second[i];
        }
        Row expected = scaled(first);
        const Row other = scaled(second);
        for (std::size_t k = 0; k < expected.size(); ++k) expected[k] += other[k];
        test::require_near(scaled(both), expected, margin_of(rows) + 1e-8 * test::length(expected));
    }
}

TEST_CASE("properties: a preference is a scaling of losses and gradients") {
    Random random(random_key(7, Purpose::test));
    const std::vector<double> p = {2, 0.5, 1, 4};
    for (const std::string& name : aggregator_names()) {
        CAPTURE(name);
        DenseAggregation preferred(made(name, {{"preference", "[2, 0.5, 1, 4]"}}), 7);
        DenseAggregation plain(made(name), 7);
        for (int step = 0; step < 3; ++step) {
            const Rows rows = reference::random_rows(random, 4, 6, 4);
            DenseStep scaled = test::step_of(rows);
            for (std::size_t i = 0; i < 4; ++i) {
                scaled.losses[i] *= p[i];
                for (double& x : scaled.rows[i]) x *= p[i];
                for (double& x : scaled.second[i]) x *= p[i];
            }
            const auto expected = plain.step(scaled);
            const auto found = preferred.step(test::step_of(rows));
            test::require_near(found->result, expected->result,
                               1e-9 * std::max(1.0, test::length(expected->result)));
        }
    }
}

TEST_CASE("properties: a small preference makes a task count little for dualproj and sum") {
    const Rows rows = {{1, 2}, {-3, 1}, {5, 5}};
    const Rows without = {{1, 2}, {-3, 1}};
    test::require_near(run("sum", rows, {{"preference", "1,1,1e-16"}}).result,
                       run("sum", without).result, 1e-14);
    Row expected = run("dualproj", without).result;
    for (double& x : expected) x *= 2.0 / 3;  // b is 1/3 each, not 1/2
    test::require_near(run("dualproj", rows, {{"preference", "1,1,1e-16"}}).result, expected,
                       1e-12);
}

TEST_CASE("properties: cr_mogm averages the weights over steps behind any method") {
    Random random(random_key(8, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        if (made(name)->needs().coordinates) continue;
        CAPTURE(name);
        DenseAggregation averaged(made(name, {{"cr_mogm", "0.75"}}), 7);
        DenseAggregation plain(made(name), 7);
        std::vector<double> expected;
        for (int step = 0; step < 4; ++step) {
            const DenseStep input = test::step_of(reference::random_rows(random, 3, 6, 3));
            const std::vector<double> now = plain.step(input)->output.weights;
            for (std::size_t i = 0; i < 3; ++i) {
                if (step == 0) expected.push_back(now[i]);
                if (step > 0) expected[i] = 0.75 * expected[i] + 0.25 * now[i];
            }
            test::require_near(averaged.step(input)->output.weights, expected, 1e-12);
        }
    }
}

TEST_CASE("properties: state saved and given to another object goes on as if nothing was") {
    Random random(random_key(9, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        if (made(name)->needs().averages) continue;  // their averages are not in the state
        CAPTURE(name);
        const auto first = made(name, name == "graddrop" || name == "trimmed_mean"
                                          ? test::ParameterTexts{}
                                          : test::ParameterTexts{{"cr_mogm", "0.5"}});
        AggregatorState whole = first->initial_state(3);
        AggregatorState cut = whole;
        for (int step = 0; step < 5; ++step) {
            const Gramian g = reference::gramian_of(reference::random_rows(random, 3, 6, 3));
            const std::vector<double> losses = {1 + random.uniform(), 2.0, 3.0 / (1 + step)};
            const std::vector<double> excess = {1, 2 + random.uniform(), 0.1};
            const AggregatorInput input{&g, losses, 9, &g, excess};
            const auto straight = first->weights(input, whole);
            AggregatorState saved{cut.values};
            const auto resumed = made(name, name == "graddrop" || name == "trimmed_mean"
                                                ? test::ParameterTexts{}
                                                : test::ParameterTexts{{"cr_mogm", "0.5"}})
                                     ->weights(input, saved);
            cut = saved;
            REQUIRE(resumed->weights == straight->weights);
            REQUIRE(cut.values == whole.values);
        }
    }
}

}  // namespace detente
