// What methods choose where their papers leave a case open: each file in common/conflict/ says it
// at its top.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "common/random.h"
#include "tests/conflict/method_run.h"

namespace detente {
namespace {

using reference::Row;
using reference::Rows;
using test::made;
using test::require_near;
using test::run;

using Numbers = std::vector<double>;

DenseResult choice_of(DenseAggregation& aggregation, const Rows& rows, const Numbers& losses) {
    auto result = aggregation.step(test::step_of(rows, losses));
    if (!result) FAIL(result.error().text);
    return std::move(*result);
}

// T·softmax.
Numbers shares_of(const Numbers& logits) {
    Numbers out;
    double sum = 0;
    for (const double x : logits) sum += std::exp(x);
    for (const double x : logits) {
        out.push_back(static_cast<double>(logits.size()) * std::exp(x) / sum);
    }
    return out;
}

}  // namespace

TEST_CASE("choices: where all gradients are zero each method has the weights it documents") {
    const Numbers ones = {1, 1, 1};
    const Numbers thirds = {1.0 / 3, 1.0 / 3, 1.0 / 3};
    const std::map<std::string, Numbers> documented = {
        {"pcgrad", ones},     {"gradvac", ones},    {"mgda", thirds},   {"cagrad", thirds},
        {"nash", thirds},     {"fairgrad", thirds}, {"imtl_g", thirds}, {"aligned", thirds},
        {"dualproj", thirds}, {"upgrad", thirds},   {"db_mtl", ones},   {"config", {0, 0, 0}},
        {"gradnorm", ones},   {"sdmgrad", thirds},  {"modo", thirds},   {"moco", thirds},
        {"excess_mtl", ones},  // nothing has moved
        {"krum", {1, 0, 0}}};  // equal scores
    const Rows zeros(3, Row(4, 0.0));
    for (const std::string& name : aggregator_names()) {
        const AggregatorNeeds needs = made(name)->needs();
        if (needs.coordinates || !(needs.gramian || needs.excess)) continue;
        CAPTURE(name);
        REQUIRE(documented.contains(name));
        const AggregatorOutput output = run(name, zeros).output;
        REQUIRE(output.status == AggregatorStatus::all_zero);
        require_near(output.weights, documented.at(name), 1e-15);
    }
}

TEST_CASE("cagrad: where the mean is zero the ball is a point and the result the mean") {
    const std::vector<Rows> cancelling = {{{1, 2}, {-1, -2}},
                                          {{2, 0}, {-1, 1}, {-1, -1}},
                                          {{3, 1, 0}, {-1, 1, 2}, {-1, -3, 1}, {-1, 1, -3}}};
    for (const Rows& rows : cancelling) {
        for (const std::string c : {"0.1", "0.5", "1.5"}) {
            CAPTURE(rows, c);
            const DenseResult found = run("cagrad", rows, {{"c", c}});
            REQUIRE(found.output.status == AggregatorStatus::degenerate);
            REQUIRE(found.output.weights == run("mean", rows).output.weights);
            require_near(found.result, Row(rows[0].size(), 0.0), 1e-15);
        }
    }
    // But for rounding, too: these add up to 4e-17.
    const DenseResult rounded =
        run("cagrad", {{.1, .2, .3}, {-.3, .1, .05}, {.2, -.3, -.35}}, {{"c", "0.5"}});
    REQUIRE(rounded.output.status == AggregatorStatus::degenerate);
    require_near(rounded.result, {0, 0, 0}, 1e-15);
}

TEST_CASE("cagrad: where no combination gains on the mean the result is the mean") {
    struct Case {
        Rows rows;
        std::string c;
        Row mean;
    };
    // The least of g₀·x + c‖g₀‖‖x‖ over the hull is at x = 0: an opposed pair beside a third that
    // is at right angles, a zero gradient, a ball that reaches beyond zero.
    const std::vector<Case> cases = {
        {{{1, 0}, {-1, 0}, {0, 3}}, "0.5", {0, 1}},
        {{{2, 0}, {0, 0}}, "0.5", {1, 0}},
        {{{1, 2, 0}, {0, 0, 0}, {0, 1, 2}}, "0.5", {1.0 / 3, 1, 2.0 / 3}},
        {{{3, 0}, {-1, 0}}, "1.5", {1, 0}}};
    for (const Case& one : cases) {
        CAPTURE(one.rows, one.c);
        const DenseResult found = run("cagrad", one.rows, {{"c", one.c}});
        REQUIRE(found.output.status == AggregatorStatus::degenerate);
        REQUIRE(found.output.weights == run("mean", one.rows).output.weights);
        require_near(found.result, one.mean, 1e-15);
        REQUIRE(found.output.kkt_residual.has_value());
        REQUIRE(*found.output.kkt_residual <= 1e-10);
    }
}

TEST_CASE("config: a zero gradient has no weight and the others are as without it") {
    Random random(random_key(1, Purpose::test));
    for (const std::size_t tasks : {1, 2, 3, 6}) {
        for (const std::size_t place : {std::size_t{0}, tasks / 2, tasks}) {
            CAPTURE(tasks, place);
            const Rows without = reference::random_rows(random, tasks, tasks + 2, tasks);
            Rows with = without;
            with.insert(with.begin() + static_cast<std::ptrdiff_t>(place), Row(tasks + 2, 0.0));
            const DenseResult expected = run("config", without);
            const DenseResult found = run("config", with);
            REQUIRE(expected.output.status == AggregatorStatus::ok);
            REQUIRE(found.output.status == AggregatorStatus::degenerate);
            REQUIRE(found.output.weights[place] == 0);
            require_near(found.result, expected.result, 1e-9 * test::length(expected.result));
        }
    }
    require_near(run("config", {{3, 4}, {0, 0}}).output.weights, {1, 0}, 1e-14);
}

TEST_CASE("config: gradients that cancel leave nothing and all weights are zero") {
    for (const Rows& rows :
         {Rows{{1, 2}, {-2, -4}}, Rows{{1, 2}, {0, 0}, {-2, -4}}, Rows{{0.3, 0}, {-7, 0}}}) {
        CAPTURE(rows);
        const DenseResult found = run("config", rows);
        REQUIRE(found.output.status == AggregatorStatus::degenerate);
        REQUIRE(found.output.weights == Numbers(rows.size(), 0.0));
        REQUIRE(found.result == Row(2, 0.0));
    }
}

TEST_CASE("imtl_g: where the weights' sum vanishes they are those of the mean") {
    const DenseResult found = run("imtl_g", {{1, 2}, {-1, -2}});
    REQUIRE(found.output.status == AggregatorStatus::degenerate);
    REQUIRE(found.output.weights == Numbers{0.5, 0.5});
}

TEST_CASE("db_mtl: a zero average weighs one and adds nothing until there is a gradient") {
    DenseAggregation db(made("db_mtl"), 1);
    const DenseResult first = choice_of(db, {{3, 0}, {0, 0}, {0, 4}}, {1, 2, 0.5});
    REQUIRE(first.output.status == AggregatorStatus::degenerate);
    const double a = 0.1 * 3 / (1 + 1e-8);
    const double b = 0.1 * 4 / (0.5 + 1e-8);
    require_near(first.output.weights, {b / a, 1, 1}, 1e-12);
    require_near(first.result, {b, b}, 1e-12);
    const DenseResult second = choice_of(db, {{3, 0}, {5, 12}, {0, 4}}, {1, 2, 0.5});
    REQUIRE(second.output.status == AggregatorStatus::ok);
    const double own = 0.1 * 13 / (2 + 1e-8);
    require_near(second.output.weights, {b / a, 1.9 * b / own, 1}, 1e-12);
}

TEST_CASE("db_mtl: a negative loss counts as zero") {
    const auto method = made("db_mtl", {{"beta", "0.75"}});
    const AverageStep step = method->average(Numbers{-3, 0, 2}, 3);
    REQUIRE(step.keep == Numbers{0.75, 0.75, 0.75});
    REQUIRE(step.add[0] == step.add[1]);
    REQUIRE(step.add[1] == Approx(0.25 / 1e-8).epsilon(1e-14));
    REQUIRE(step.add[2] == Approx(0.25 / (2 + 1e-8)).epsilon(1e-14));
}

TEST_CASE("excess_mtl: a task without excess keeps its weight until it has recorded one") {
    const auto method = made("excess_mtl", {{"eta", "0.5"}});
    AggregatorState state = method->initial_state(3);
    const Gramian g = reference::gramian_of({{1, 0}, {0, 1}, {1, 1}});
    const auto of = [&](const Numbers& excess) {
        auto output = method->weights({&g, {}, 1, nullptr, excess}, state);
        REQUIRE(output.has_value());
        return *output;
    };
    const auto is = [](const AggregatorOutput& output, const Numbers& logits,
                       AggregatorStatus status) {
        require_near(output.weights, shares_of(logits), 1e-12);
        REQUIRE(output.status == status);
    };
    constexpr AggregatorStatus kOk = AggregatorStatus::ok;
    constexpr AggregatorStatus kOpen = AggregatorStatus::degenerate;
    is(of({2, 0, 4}), {0, 0, 0}, kOpen);        // recorded: 2 and 4
    is(of({2, 0, 8}), {0.5, 0, 1}, kOpen);      // once and twice the first
    is(of({2, 5, 4}), {1, 0, 1.5}, kOk);        // only recorded: 5
    is(of({2, 10, 4}), {1.5, 1, 2}, kOk);       // twice its first
    is(of({0, 5, 4}), {1.5, 1.5, 2.5}, kOpen);  // nothing to add
    is(of({0, 0, 0}), {1.5, 1.5, 2.5}, AggregatorStatus::all_zero);
    is(of({4, 5, 4}), {2.5, 2, 3}, kOk);
}

TEST_CASE("famo: a negative loss counts as zero and is said to") {
    const std::vector<Numbers> negative = {{-2, 1}, {-1, 0.5}, {0.25, 0.75}, {-0.125, 1}};
    const Rows rows = {{1, 0}, {0, 1}};
    DenseAggregation famo(made("famo"), 1);
    DenseAggregation of_zero(made("famo"), 1);
    for (const Numbers& losses : negative) {
        CAPTURE(losses);
        const Numbers zeroed = {std::max(0.0, losses[0]), losses[1]};
        const AggregatorOutput found = choice_of(famo, rows, losses).output;
        const AggregatorOutput expected = choice_of(of_zero, rows, zeroed).output;
        REQUIRE(found.weights == expected.weights);
        REQUIRE(found.status ==
                (losses[0] < 0 ? AggregatorStatus::degenerate : AggregatorStatus::ok));
        REQUIRE(expected.status == AggregatorStatus::ok);
        REQUIRE(found.weights[0] + found.weights[1] == Approx(1));
    }
    // Weights as 1 / (L + 1e-8), of sum 1.
    const double other = 1e-8 / (1 + 2e-8);
    require_near(run("famo", rows, {}, {-2, 1}).output.weights, {1 - other, other}, 1e-15);
}

TEST_CASE("gls: a loss below 1e-8 counts as that") {
    const AggregatorOutput output = run("gls", {{1, 0}, {0, 1}, {1, 1}}, {}, {1, -5, 8}).output;
    REQUIRE(output.status == AggregatorStatus::degenerate);
    const double mean = std::cbrt(8e-8);
    REQUIRE(*output.objective == Approx(mean).epsilon(1e-12));
    REQUIRE(output.weights[0] == Approx(mean / 3).epsilon(1e-12));
    REQUIRE(output.weights[1] == Approx(mean / 3e-8).epsilon(1e-12));
    REQUIRE(output.weights[2] == Approx(mean / 24).epsilon(1e-12));
}

TEST_CASE("gradnorm: a weight that would be negative is zero and if all are they begin again") {
    DenseAggregation one(made("gradnorm", {{"lr", "1"}}), 1);
    choice_of(one, {{1, 0}, {0, 4}}, {1, 1});  // 1 + 1 and 1 − 4
    require_near(choice_of(one, {{1, 0}, {0, 4}}, {1, 1}).output.weights, {2, 0}, 1e-12);

    DenseAggregation all(made("gradnorm", {{"alpha", "0.5"}, {"lr", "0.1"}}), 1);
    choice_of(all, {{1, 0}, {0, 2}}, {1, 1});
    // Norms 1 and 2 beside their mean, 1.5: 1.1 and .8, with sum 2.
    const DenseResult before = choice_of(all, {{12, 0}, {0, 48}}, {0.1, 1.9});
    require_near(before.output.weights, {2.2 / 1.9, 1.6 / 1.9}, 1e-12);
    // Both above their targets of 8.6 and 37.4, and their steps 1.2 and 4.8 are more than there is.
    require_near(choice_of(all, {{1, 0}, {0, 1}}, {1, 1}).output.weights, {1, 1}, 0);
}

TEST_CASE("dwa: ratios are between losses of at least 1e-8 and at most a million") {
    const Rows rows = {{1, 0}, {0, 1}};
    const auto third_step = [&](const std::string& temperature, const Numbers& first,
                                const Numbers& second) {
        DenseAggregation dwa(made("dwa", {{"temperature", temperature}}), 1);
        choice_of(dwa, rows, first);
        choice_of(dwa, rows, second);
        return choice_of(dwa, rows, {1, 1}).output.weights;
    };
    require_near(third_step("1000", {0, 1}, {1e-5, 1}), shares_of({1, 1e-3}), 1e-12);
    require_near(third_step("1000", {-3, 1}, {1e-5, 1}), shares_of({1, 1e-3}), 1e-12);
    require_near(third_step("1000000", {0, 1}, {1, 1}), shares_of({1, 1e-6}), 1e-12);
}

TEST_CASE("uw and imtl_l: what is learnt stays within thirty either way") {
    const Rows rows = {{1, 0}, {0, 1}};
    for (const bool uw : {true, false}) {
        DenseAggregation method(made(uw ? "uw" : "imtl_l", {{"lr", "1"}}), 1);
        choice_of(method, rows, {1e6, -1e6});
        const double up = uw ? 30 : -30;
        require_near(method.state().values, {up, -up}, 0);
        const Numbers weights = choice_of(method, rows, {1e6, -1e6}).output.weights;
        const double factor = uw ? 0.5 : 1;
        REQUIRE(weights[0] == Approx(factor * std::exp(-30)));
        REQUIRE(weights[1] == Approx(factor * std::exp(30)));
    }
}

}  // namespace detente
