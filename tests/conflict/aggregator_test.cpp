#include "common/conflict/aggregator.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
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

// Job files have these; a name that is there once stays.
const std::vector<std::string> kNames = {
    "sum",    "mean",   "constant",   "pcgrad",  "gradvac",  "mgda",
    "cagrad", "nash",   "fairgrad",   "imtl_g",  "aligned",  "dualproj",
    "upgrad", "config", "gradnorm",   "sdmgrad", "modo",     "moco",
    "uw",     "imtl_l", "dwa",        "rlw",     "gls",      "famo",
    "stch",   "db_mtl", "excess_mtl", "krum",    "graddrop", "trimmed_mean"};

struct Held {
    Gramian gramian;
    Gramian cross;
    std::vector<double> losses;
    std::vector<double> excess;
    AggregatorInput input() const { return {&gramian, losses, 7, &cross, excess}; }
};
Held held(const Gramian& g) {
    return {g, g, std::vector<double>(g.tasks(), 1.0), std::vector<double>(g.tasks(), 1.0)};
}

}  // namespace

TEST_CASE("aggregators: the catalog has every method under its name and makes it") {
    std::vector<std::string> names = aggregator_names();
    for (const std::string& name : kNames) {
        CAPTURE(name);
        REQUIRE(std::count(names.begin(), names.end(), name) == 1);
    }
    for (const std::string& name : names) {
        REQUIRE(made(name)->name() == name);
        REQUIRE_FALSE(aggregator_paper(name).empty());
    }
}

TEST_CASE("aggregators: a job that says nothing gets the sum") {
    const auto method = make_aggregator({});
    REQUIRE(method.has_value());
    REQUIRE(method.value()->name() == "sum");
}

TEST_CASE("aggregators: results are finite for every rank and scale, over a few steps") {
    Random random(random_key(2, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        for (const std::size_t tasks : {1, 2, 3, 5, 9}) {
            if (tasks < test::least_tasks(name)) continue;
            for (std::size_t rank = 0; rank <= tasks; ++rank) {
                for (const double scale : {1e-12, 1.0, 1e12}) {
                    CAPTURE(name, tasks, rank, scale);
                    DenseAggregation aggregation(made(name), 3);
                    for (int step = 0; step < 3; ++step) {
                        const Rows rows = reference::random_rows(random, tasks, 10, rank,
                                                                 std::vector<double>(tasks, scale));
                        const auto result = aggregation.step(test::step_of(rows));
                        REQUIRE(result.has_value());
                        const bool coordinates = made(name)->needs().coordinates;
                        REQUIRE(result->output.weights.size() == (coordinates ? 0 : tasks));
                        for (const double w : result->output.weights) REQUIRE(std::isfinite(w));
                        for (const double x : result->result) REQUIRE(std::isfinite(x));
                        if (rank == 0) {
                            for (const double x : result->result) REQUIRE(x == 0);
                        }
                    }
                }
            }
        }
    }
}

TEST_CASE("aggregators: results are finite for rows of mixed scales and odd shapes") {
    const std::vector<Rows> shapes = {
        {{1, 2, 3}, {-1, -2, -3}, {0.5, 1, 1.5}},  // antiparallel and parallel
        {{1, 0, 0}, {1, 0, 0}, {1, 0, 0}},         // repeated
        {{0, 0, 0}, {1, 2, 3}, {-1, 1, 0}},        // one zero
        {{1e12, 0, 1}, {1e-12, 1e-12, 0}, {0, -1, 1}},
        {{1e12, -1e12, 0}, {-1e-12, 1e-12, 1e-13}, {1, 1, 1}},
        {{1e-12, 0, 0}, {-1e-12, 1e-20, 0}, {0, 0, 1e-12}},
        {{1, 1, 1}, {-1, -1, -1 + 1e-9}, {2, -3, 1}},
        {{0, 0, 0}, {0, 0, 0}, {0, 0, 1}},
    };
    for (const std::string& name : aggregator_names()) {
        for (std::size_t k = 0; k < shapes.size(); ++k) {
            CAPTURE(name, k);
            const DenseResult result = run(name, shapes[k]);
            for (const double w : result.output.weights) REQUIRE(std::isfinite(w));
            for (const double x : result.result) REQUIRE(std::isfinite(x));
        }
    }
}

TEST_CASE("aggregators: all gradients zero is said, by every method that looks at them") {
    for (const std::string& name : aggregator_names()) {
        CAPTURE(name);
        const AggregatorNeeds needs = made(name)->needs();
        if (!needs.gramian && !needs.coordinates && !needs.excess) continue;
        REQUIRE(run(name, {{0, 0}, {0, 0}, {0, 0}}).output.status == AggregatorStatus::all_zero);
    }
}

TEST_CASE("aggregators: a task whose gradient holds NaN or Inf is named, and no other") {
    for (const std::string& name : aggregator_names()) {
        for (const double bad :
             {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
            Gramian g = reference::gramian_of({{1, 0}, {0, 1}, {1, 1}});
            for (std::size_t k = 0; k < 3; ++k) g.at(1, k) = g.at(k, 1) = bad;
            const Held input = held(g);
            AggregatorState state = made(name)->initial_state(3);
            const AggregatorState before = state;
            const auto output = made(name)->weights(input.input(), state);
            REQUIRE(output.has_error());
            REQUIRE(output.error().code == ErrorCode::not_finite);
            REQUIRE(output.error().text.find("task 1") != std::string::npos);
            REQUIRE(output.error().text.find("task 0") == std::string::npos);
            REQUIRE(output.error().text.find("task 2") == std::string::npos);
            REQUIRE(state.values == before.values);
        }
    }
}

TEST_CASE("aggregators: a loss that is not finite is named, and moves no state") {
    const Gramian g = reference::gramian_of({{1, 0}, {0, 1}, {1, 1}});
    for (const std::string& name : aggregator_names()) {
        Held input = held(g);
        input.losses[1] = std::numeric_limits<double>::quiet_NaN();
        AggregatorState state = made(name)->initial_state(3);
        const AggregatorState before = state;
        const auto output = made(name)->weights(input.input(), state);
        REQUIRE(output.has_error());
        REQUIRE(output.error().code == ErrorCode::not_finite);
        REQUIRE(output.error().text.find("loss of task 1") != std::string::npos);
        REQUIRE(state.values == before.values);
    }
}

TEST_CASE("aggregators: a need that is not met is said") {
    const Gramian g = reference::gramian_of({{1, 0}, {0, 1}, {1, 1}});
    for (const std::string& name : aggregator_names()) {
        CAPTURE(name);
        const AggregatorNeeds needs = made(name)->needs();
        AggregatorState state = made(name)->initial_state(3);
        const auto output = made(name)->weights({&g}, state);
        const bool lacks = needs.losses || needs.second_batch || needs.excess;
        REQUIRE(output.has_error() == lacks);
        if (lacks) REQUIRE(output.error().code == ErrorCode::bad_job);
    }
}

TEST_CASE("aggregators: no tasks, no weights") {
    for (const std::string& name : aggregator_names()) {
        AggregatorState state = made(name)->initial_state(0);
        const Gramian none(0);
        const auto output = made(name)->weights({&none}, state);
        if (made(name)->needs().second_batch) continue;
        REQUIRE(output.has_value());
        REQUIRE(output->weights.empty());
    }
}

TEST_CASE("aggregators: an unknown method is refused and the nearest one named") {
    const auto method = make_aggregator({"pcgard", {}});
    REQUIRE(method.has_error());
    REQUIRE(method.error().code == ErrorCode::bad_job);
    REQUIRE(method.error().text.find("did you mean 'pcgrad'") != std::string::npos);
    REQUIRE(method.error().text.find("upgrad") != std::string::npos);
}

TEST_CASE("aggregators: an unknown parameter is refused and the nearest one named") {
    const auto misspelt = make_aggregator({"pcgrad", {{"oder", "1;0"}}});
    REQUIRE(misspelt.has_error());
    REQUIRE(misspelt.error().code == ErrorCode::bad_job);
    REQUIRE(misspelt.error().text.find("'oder'; did you mean 'order'?") != std::string::npos);
    const auto superfluous = make_aggregator({"mgda", {{"radius", "0.5"}}});
    REQUIRE(superfluous.has_error());
    REQUIRE(superfluous.error().text.find("'mgda' has no parameter 'radius'") != std::string::npos);
    const auto twice = make_aggregator({"pcgrad", {{"order", "1;0"}, {"order", "1;0"}}});
    REQUIRE(twice.has_error());
    REQUIRE(twice.error().text.find("twice") != std::string::npos);
}

TEST_CASE("aggregators: values out of range are refused when the method is made") {
    const std::vector<std::pair<std::string, std::pair<std::string, std::string>>> wrong = {
        {"cagrad", {"c", "-1"}},
        {"cagrad", {"c", "x"}},
        {"cagrad", {"c", "nan"}},
        {"fairgrad", {"alpha", "0"}},
        {"aligned", {"scale", "max"}},
        {"krum", {"f", "-1"}},
        {"krum", {"m", "0"}},
        {"trimmed_mean", {"trim", "1.5"}},
        {"stch", {"mu", "0"}},
        {"gradvac", {"beta", "2"}},
        {"dwa", {"temperature", "0"}},
        {"graddrop", {"leak", "0.5,2"}},
        {"constant", {"weights", "1,,2"}},
        {"sum", {"cr_mogm", "1"}},
        {"sum", {"preference", "1,-1"}},
        {"mgda", {"preference", "1,1,0"}},
        {"sum", {"preference", "1,nan"}},
        {"graddrop", {"cr_mogm", "0.5"}}};
    for (const auto& [name, parameter] : wrong) {
        CAPTURE(name, parameter.first, parameter.second);
        const auto method = make_aggregator({name, {parameter}});
        REQUIRE(method.has_error());
        REQUIRE(method.error().code == ErrorCode::bad_job);
        REQUIRE(method.error().text.find(parameter.first) != std::string::npos);
    }
}

TEST_CASE("aggregators: a preference of zero is refused and says what to do") {
    const auto method = make_aggregator({"mgda", {{"preference", "1,1,0"}}});
    REQUIRE(method.has_error());
    REQUIRE(method.error().text.find("above 0, found 0") != std::string::npos);
    REQUIRE(method.error().text.find("leave it out of the job") != std::string::npos);
}

TEST_CASE("aggregators: products with a second batch beyond double are refused by task") {
    DenseAggregation aggregation(made("modo"), 1);
    DenseStep step = test::step_of({{1e150}, {1e150}});
    step.second = {{1e100}, {-1e200}};
    const auto result = aggregation.step(step);
    REQUIRE(result.has_error());
    REQUIRE(result.error().code == ErrorCode::not_finite);
    REQUIRE(result.error().text.find("task 1 in the first batch and task 1") != std::string::npos);
    step.second = {{1e200}, {-1e200}};
    REQUIRE(aggregation.step(step).error().code == ErrorCode::not_finite);
}

TEST_CASE("aggregators: an excess that is not finite is refused by task") {
    const Gramian g = reference::gramian_of({{1, 0}, {0, 1}});
    const auto method = made("excess_mtl");
    AggregatorState state = method->initial_state(2);
    const std::vector<double> excess = {1, std::nan("")};
    const std::vector<double> losses = {1, 1};
    const auto output = method->weights({&g, losses, 1, nullptr, excess}, state);
    REQUIRE(output.has_error());
    REQUIRE(output.error().code == ErrorCode::not_finite);
    REQUIRE(output.error().text.find("excess of task 1") != std::string::npos);
}

TEST_CASE("aggregators: a preference that takes products beyond double is refused by name") {
    DenseAggregation aggregation(made("mgda", {{"preference", "1e18,1"}}), 1);
    const auto result = aggregation.step(test::step_of({{1e140, 0}, {0, 1}}));
    REQUIRE(result.has_error());
    REQUIRE(result.error().code == ErrorCode::not_finite);
    REQUIRE(result.error().text.find("the preference 1e+18,1") != std::string::npos);
    REQUIRE(result.error().text.find("task 0") != std::string::npos);
}

TEST_CASE("aggregators: values for another number of tasks are refused") {
    const std::vector<std::pair<std::string, std::pair<std::string, std::string>>> wrong = {
        {"constant", {"weights", "1,2"}},
        {"stch", {"z", "1,2"}},
        {"graddrop", {"leak", "0,1"}},
        {"sum", {"preference", "1,2"}},
        {"krum", {"f", "1"}},
        {"krum", {"m", "4"}},
        {"trimmed_mean", {"trim", "2"}},
        {"gradvac", {"order", "1;0"}}};
    for (const auto& [name, parameter] : wrong) {
        CAPTURE(name);
        DenseAggregation aggregation(made(name, {parameter}), 1);
        const auto result = aggregation.step(test::step_of({{1, 0}, {0, 1}, {1, 1}}));
        REQUIRE(result.has_error());
        REQUIRE(result.error().code == ErrorCode::bad_job);
    }
}

TEST_CASE(
    "aggregators: every parameter has a meaning and its written-out default changes nothing") {
    Random random(random_key(4, Purpose::test));
    const Rows rows = reference::random_rows(random, 4, 6, 4);
    for (const std::string& name : aggregator_names()) {
        CAPTURE(name);
        test::ParameterTexts written;
        for (const auto& [key, meaning, standard, per_task] : aggregator_parameters(name)) {
            REQUIRE_FALSE(key.empty());
            REQUIRE_FALSE(meaning.empty());
            written.emplace_back(key, standard);
        }
        REQUIRE(written.size() >= 2);  // preference and cr_mogm
        DenseAggregation plain(made(name), 5);
        DenseAggregation spelt(made(name, written), 5);
        for (int step = 0; step < 3; ++step) {
            REQUIRE(plain.step(test::step_of(rows))->result ==
                    spelt.step(test::step_of(rows))->result);
        }
    }
    REQUIRE(aggregator_parameters("no such method").empty());
}

}  // namespace detente
