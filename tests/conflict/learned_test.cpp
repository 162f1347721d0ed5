// Methods that weigh by losses, learn, or keep averages: each against its paper's objective,
// differentiated numerically, or its recurrence written out.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"
#include "tests/reference/fair_reference.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::made;
using test::require_near;
using test::run;
using Values = std::vector<double>;

const Rows kRows = {{1, 2, 0}, {-1, 1, 3}, {0.5, 0, -2}};

// Central differences of a function of a few values.
Values gradient_of(const std::function<double(const Values&)>& f, Values at) {
    Values out;
    for (double& x : at) {
        const double h = 1e-5 * std::max(1.0, std::abs(x));
        const double kept = x;
        x = kept + h;
        const double above = f(at);
        x = kept - h;
        out.push_back((above - f(at)) / (2 * h));
        x = kept;
    }
    return out;
}

Values softmax_of(const Values& x) {
    Values out;
    for (const double value : x) out.push_back(std::exp(value));
    const double sum = std::accumulate(out.begin(), out.end(), 0.0);
    for (double& value : out) value /= sum;
    return out;
}

std::vector<Values> loss_sequence(std::size_t steps) {
    Random random(random_key(1, Purpose::test));
    std::vector<Values> all;
    for (std::size_t k = 0; k < steps; ++k) {
        all.push_back({0.2 + random.uniform(), 1 + 2 * random.uniform(), 5 * random.uniform() + 1});
    }
    return all;
}

DenseResult step(DenseAggregation& aggregation, const Rows& rows, const Values& losses) {
    auto result = aggregation.step(test::step_of(rows, losses));
    if (!result) FAIL(result.error().text);
    return std::move(*result);
}

}  // namespace

TEST_CASE("uw: weights are the objective's slopes in the losses, s descends it") {
    DenseAggregation uw(made("uw", {{"lr", "0.1"}}), 1);
    Values s(3, 0.0);
    for (const Values& losses : loss_sequence(6)) {
        const auto objective = [&](const Values& l, const Values& at) {
            double sum = 0;
            for (std::size_t i = 0; i < 3; ++i) sum += (std::exp(-at[i]) * l[i] + at[i]) / 2;
            return sum;
        };
        const auto output = step(uw, kRows, losses).output;
        require_near(output.weights,
                     gradient_of([&](const Values& l) { return objective(l, s); }, losses), 1e-8);
        REQUIRE(*output.objective == Approx(objective(losses, s)));
        const Values slopes =
            gradient_of([&](const Values& at) { return objective(losses, at); }, s);
        for (std::size_t i = 0; i < 3; ++i) s[i] -= 0.1 * slopes[i];
        require_near(uw.state().values, s, 1e-8);
    }
}

TEST_CASE("imtl_l: weights are the objective's slopes in the losses, s descends it") {
    DenseAggregation imtl(made("imtl_l", {{"lr", "0.05"}}), 1);
    Values s(3, 0.0);
    for (const Values& losses : loss_sequence(6)) {
        const auto objective = [&](const Values& l, const Values& at) {
            double sum = 0;
            for (std::size_t i = 0; i < 3; ++i) sum += std::exp(at[i]) * l[i] - at[i];
            return sum;
        };
        const auto output = step(imtl, kRows, losses).output;
        require_near(output.weights,
                     gradient_of([&](const Values& l) { return objective(l, s); }, losses), 1e-8);
        const Values slopes =
            gradient_of([&](const Values& at) { return objective(losses, at); }, s);
        for (std::size_t i = 0; i < 3; ++i) s[i] -= 0.05 * slopes[i];
        require_near(imtl.state().values, s, 1e-8);
    }
}

TEST_CASE("imtl_l: brings every scaled loss to one") {
    DenseAggregation imtl(made("imtl_l", {{"lr", "0.1"}}), 1);
    Values weights;
    for (int k = 0; k < 500; ++k) weights = step(imtl, kRows, {0.1, 2, 7}).output.weights;
    require_near(weights, {10, 0.5, 1.0 / 7}, 1e-6);
}

TEST_CASE("gls: weights are the slopes of the geometric mean") {
    for (const Values& losses : loss_sequence(8)) {
        const auto mean = [](const Values& l) { return std::cbrt(l[0] * l[1] * l[2]); };
        const auto output = run("gls", kRows, {}, losses).output;
        require_near(output.weights, gradient_of(mean, losses), 1e-7);
        REQUIRE(*output.objective == Approx(mean(losses)));
    }
    REQUIRE(run("gls", kRows, {}, {1, 0, 1}).output.status == AggregatorStatus::degenerate);
}

TEST_CASE("stch: weights are the slopes of the smooth maximum, which is ln 2 for two zeros") {
    const auto zeros = run("stch", {{1, 0}, {0, 1}}, {{"mu", "1"}}, {0, 0}).output;
    REQUIRE(*zeros.objective == Approx(std::log(2.0)).epsilon(1e-14));
    require_near(zeros.weights, {0.5, 0.5}, 1e-15);
    for (const double mu : {0.1, 1.0, 10.0}) {
        for (const Values& losses : loss_sequence(5)) {
            const auto smooth = [&](const Values& l) {
                double sum = 0;
                for (std::size_t i = 0; i < 3; ++i) sum += std::exp((l[i] - 0.1) / mu);
                return mu * std::log(sum);
            };
            const auto output =
                run("stch", kRows, {{"mu", std::to_string(mu)}, {"z", "0.1"}}, losses).output;
            require_near(output.weights, gradient_of(smooth, losses), 1e-7);
            REQUIRE(*output.objective == Approx(smooth(losses)));
        }
    }
    // Neither overflows nor vanishes where losses are far above mu.
    require_near(run("stch", kRows, {{"mu", "0.001"}}, {900, 901, 5}).output.weights, {0, 1, 0},
                 1e-12);
}

TEST_CASE("stch: a preference multiplies the loss above the ideal point") {
    const Values p = {2, 0.5, 4};
    const Values z = {0.1, 0.2, -0.3};
    for (const Values& losses : loss_sequence(5)) {
        const auto smooth = [&](const Values& l) {
            double sum = 0;
            for (std::size_t i = 0; i < 3; ++i) sum += std::exp(p[i] * (l[i] - z[i]) / 2);
            return 2 * std::log(sum);
        };
        const auto output =
            run("stch", kRows, {{"mu", "2"}, {"z", "0.1,0.2,-0.3"}, {"preference", "2,0.5,4"}},
                losses)
                .output;
        require_near(output.weights, gradient_of(smooth, losses), 1e-7);
        REQUIRE(*output.objective == Approx(smooth(losses)));
    }
}

TEST_CASE("dwa: follows the ratio of the last two losses after two equal steps") {
    const std::vector<Values> losses = loss_sequence(6);
    DenseAggregation dwa(made("dwa", {{"temperature", "1.5"}}), 1);
    for (std::size_t k = 0; k < losses.size(); ++k) {
        Values rates(3, 1 / 1.5);
        for (std::size_t i = 0; i < 3 && k >= 2; ++i) {
            rates[i] = losses[k - 1][i] / losses[k - 2][i] / 1.5;
        }
        Values expected = softmax_of(rates);
        for (double& w : expected) w *= 3;
        require_near(step(dwa, kRows, losses[k]).output.weights, expected, 1e-12);
    }
}

TEST_CASE("rlw: draws anew at every step, from the seed alone, with sum one") {
    DenseAggregation first(made("rlw"), 5);
    DenseAggregation again(made("rlw"), 5);
    DenseAggregation other(made("rlw"), 6);
    Values mean(3, 0.0);
    Values last;
    for (int k = 0; k < 3000; ++k) {
        const Values w = step(first, kRows, {1, 1, 1}).output.weights;
        REQUIRE(w != last);
        last = w;
        REQUIRE(std::accumulate(w.begin(), w.end(), 0.0) == Approx(1));
        if (k < 10) REQUIRE(step(again, kRows, {1, 1, 1}).output.weights == w);
        if (k < 10) REQUIRE(step(other, kRows, {1, 1, 1}).output.weights != w);
        for (std::size_t i = 0; i < 3; ++i) mean[i] += w[i] / 3000;
    }
    require_near(mean, {1.0 / 3, 1.0 / 3, 1.0 / 3}, 0.02);
}

TEST_CASE("famo: logits go against the fall of the log losses") {
    const std::vector<Values> losses = loss_sequence(6);
    DenseAggregation famo(made("famo", {{"gamma", "0.01"}, {"w_lr", "0.5"}}), 1);
    Values xi(3, 0.0);
    for (std::size_t k = 0; k < losses.size(); ++k) {
        if (k > 0) {
            // δ is the slope in ξ of Σ zᵢ·(log L(t) − log L(t+1)).
            const Values slopes = gradient_of(
                [&](const Values& at) {
                    const Values z = softmax_of(at);
                    double sum = 0;
                    for (std::size_t i = 0; i < 3; ++i) {
                        sum += z[i] * (std::log(losses[k - 1][i]) - std::log(losses[k][i]));
                    }
                    return sum;
                },
                xi);
            for (std::size_t i = 0; i < 3; ++i) xi[i] -= 0.5 * (slopes[i] + 0.01 * xi[i]);
        }
        Values expected = softmax_of(xi);
        double sum = 0;
        for (std::size_t i = 0; i < 3; ++i) sum += expected[i] /= losses[k][i];
        for (double& w : expected) w /= sum;
        require_near(step(famo, kRows, losses[k]).output.weights, expected, 1e-6);
    }
}

TEST_CASE("gradnorm: weights descend the norms' distance from their targets") {
    const std::vector<Values> losses = loss_sequence(6);
    DenseAggregation gradnorm(made("gradnorm", {{"alpha", "0.7"}, {"lr", "0.01"}}), 1);
    Values w(3, 1.0);
    Values lengths;
    for (const Row& row : kRows) lengths.push_back(test::length(row));
    for (const Values& now : losses) {
        require_near(step(gradnorm, kRows, now).output.weights, w, 1e-7);
        Values rate;
        double mean_rate = 0;
        double target = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            rate.push_back(now[i] / losses[0][i]);
            mean_rate += rate[i] / 3;
            target += w[i] * lengths[i] / 3;
        }
        const Values slopes = gradient_of(
            [&](const Values& at) {
                double sum = 0;
                for (std::size_t i = 0; i < 3; ++i) {
                    sum +=
                        std::abs(at[i] * lengths[i] - target * std::pow(rate[i] / mean_rate, 0.7));
                }
                return sum;
            },
            w);
        double total = 0;
        for (std::size_t i = 0; i < 3; ++i) total += w[i] -= 0.01 * slopes[i];
        for (double& x : w) x *= 3 / total;
    }
}

TEST_CASE("gradnorm: makes norms alike when all tasks learn alike") {
    DenseAggregation gradnorm(made("gradnorm", {{"lr", "0.001"}}), 1);
    const Rows rows = {{1, 0}, {0, 4}};
    Values weights;
    for (int k = 0; k < 3000; ++k) weights = step(gradnorm, rows, {1, 1}).output.weights;
    REQUIRE(weights[0] * 1 == Approx(weights[1] * 4).epsilon(0.02));
    REQUIRE(weights[0] + weights[1] == Approx(2));
}

TEST_CASE("sdmgrad and modo: step along two batches' cross products, onto the simplex") {
    Random random(random_key(2, Purpose::test));
    for (const bool sdm : {true, false}) {
        const double lambda = sdm ? 0.4 : 0;
        const double rho = sdm ? 0 : 0.2;
        DenseAggregation method(sdm ? made("sdmgrad", {{"lambda", "0.4"}, {"beta", "0.03"}})
                                    : made("modo", {{"gamma", "0.03"}, {"rho", "0.2"}}),
                                1);
        Values w(3, 1.0 / 3);
        for (int k = 0; k < 8; ++k) {
            const Rows first = reference::random_rows(random, 3, 5, 3);
            const Rows second = reference::random_rows(random, 3, 5, 3);
            Values towards = w;
            for (double& x : towards) x += lambda / 3;
            const Row direction = reference::combined(towards, second);
            Values moved = w;
            for (std::size_t i = 0; i < 3; ++i) {
                moved[i] -= 0.03 * (reference::dot(first[i], direction) + rho * w[i]);
            }
            w = reference::project_on_simplex(moved);
            Values expected = w;
            for (double& x : expected) x = (x + lambda / 3) / (1 + lambda);
            const auto result = method.step({first, {}, second});
            require_near(result->output.weights, expected, 1e-9);
            require_near(result->result, reference::combined(expected, first), 1e-8);
        }
    }
}

TEST_CASE("modo: with one batch twice nears MGDA's weights") {
    DenseAggregation modo(made("modo", {{"gamma", "0.01"}}), 1);
    const Rows rows = {{-4, 1, 1}, {6, 1, 1}};
    Values weights;
    for (int k = 0; k < 3000; ++k) weights = modo.step({rows, {}, rows})->output.weights;
    require_near(weights, {.6, .4}, 1e-6);
}

TEST_CASE("moco: averages the gradients, then steps on their own Gramian") {
    Random random(random_key(3, Purpose::test));
    DenseAggregation moco(made("moco", {{"beta", "0.3"}, {"gamma", "0.05"}, {"rho", "0.1"}}), 1);
    Rows y(3, Row(5, 0.0));
    Values w(3, 1.0 / 3);
    for (int k = 0; k < 8; ++k) {
        const Rows rows = reference::random_rows(random, 3, 5, 3);
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t e = 0; e < 5; ++e) y[i][e] -= 0.3 * (y[i][e] - rows[i][e]);
        }
        const Row direction = reference::combined(w, y);
        Values moved = w;
        for (std::size_t i = 0; i < 3; ++i) {
            moved[i] -= 0.05 * (reference::dot(y[i], direction) + 0.1 * w[i]);
        }
        w = reference::project_on_simplex(moved);
        const auto result = moco.step({rows});
        require_near(result->output.weights, w, 1e-9);
        require_near(result->result, reference::combined(w, y), 1e-8);
    }
}

TEST_CASE("db_mtl: averages log losses' gradients and scales them to the longest") {
    Random random(random_key(4, Purpose::test));
    DenseAggregation db(made("db_mtl", {{"beta", "0.8"}}), 1);
    Rows y(3, Row(5, 0.0));
    for (const Values& losses : loss_sequence(6)) {
        const Rows rows = reference::random_rows(random, 3, 5, 3);
        Row expected(5, 0.0);
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t e = 0; e < 5; ++e) {
                y[i][e] = 0.8 * y[i][e] + 0.2 * rows[i][e] / (losses[i] + 1e-8);
            }
        }
        for (const Row& average : y) {
            const double factor = test::longest(y) / test::length(average);
            for (std::size_t e = 0; e < 5; ++e) expected[e] += factor * average[e];
        }
        require_near(step(db, rows, losses).result, expected, 1e-9);
    }
}

TEST_CASE("excess_mtl: grows the weight of tasks far from their optimum, after a first record") {
    Random random(random_key(5, Purpose::test));
    DenseAggregation excess(made("excess_mtl", {{"eta", "0.2"}}), 1);
    Rows squares(3, Row(5, 0.0));
    Values first;
    Values w(3, 1.0);
    for (int k = 0; k < 8; ++k) {
        const Rows rows = reference::random_rows(random, 3, 5, 3);
        Values risk(3, 0.0);
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t e = 0; e < 5; ++e) {
                squares[i][e] += rows[i][e] * rows[i][e];
                risk[i] += rows[i][e] * rows[i][e] / std::sqrt(squares[i][e]);
            }
        }
        if (k == 0) first = risk;
        double sum = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            if (k > 0) w[i] *= std::exp(0.2 * risk[i] / first[i]);
            sum += w[i];
        }
        for (double& x : w) x *= 3 / sum;
        require_near(excess.step({rows})->output.weights, w, 1e-10);
    }
}

TEST_CASE("dense: a step that is refused leaves the state as it was") {
    DenseAggregation moco(made("moco"), 1);
    REQUIRE(moco.step({kRows}).has_value());
    const Values before = moco.state().values;
    REQUIRE(moco.step({{{1, 2}, {3, 4}, {5, 6}}}).has_error());             // another shape
    REQUIRE(moco.step({{{1, 2, 3}, {1, 2}, {1, 2, 3}}}).has_error());       // ragged
    REQUIRE(moco.step({{{1, 2, NAN}, {1, 2, 0}, {1, 2, 3}}}).has_error());  // not finite
    REQUIRE(moco.step(DenseStep{}).has_error());                            // empty
    REQUIRE(moco.state().values == before);
    REQUIRE(moco.step({kRows}).has_value());
}

}  // namespace detente
