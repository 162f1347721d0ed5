#include "common/conflict/aggregator.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "common/random.h"
#include "tests/reference/conflict_reference.h"

namespace detente {
namespace {

std::unique_ptr<const Aggregator> made(const std::string& name) {
    auto method = make_aggregator({name, {}});
    REQUIRE(method.has_value());
    return std::move(method).value();
}

Result<AggregatorOutput> run(const std::string& name, const Gramian& g,
                             std::span<const double> losses = {}) {
    const auto method = made(name);
    AggregatorState state = method->initial_state(g.tasks());
    return method->weights({&g, losses, 7}, state);
}

}  // namespace

TEST_CASE("aggregators: the catalog makes each method it names") {
    REQUIRE_FALSE(aggregator_names().empty());
    for (const std::string& name : aggregator_names()) REQUIRE(made(name)->name() == name);
    for (const std::string name : {"sum", "mean", "mgda", "pcgrad"}) REQUIRE(made(name));
}

TEST_CASE("aggregators: a job that says nothing gets the sum") {
    const auto method = make_aggregator({});
    REQUIRE(method.has_value());
    REQUIRE(method.value()->name() == "sum");
}

TEST_CASE("aggregators: the sum of the worked example is 2, 2, 2 and the mean 1, 1, 1") {
    const reference::Rows rows = {{-4, 1, 1}, {6, 1, 1}};
    const Gramian g = reference::gramian_of(rows);
    REQUIRE(reference::combined(run("sum", g)->weights, rows) == reference::Row{2, 2, 2});
    REQUIRE(reference::combined(run("mean", g)->weights, rows) == reference::Row{1, 1, 1});
    REQUIRE(run("mean", Gramian(4))->weights == std::vector<double>(4, 0.25));
}

TEST_CASE("aggregators: weights follow the Gramian only, so a rotation of J moves none") {
    Random random(random_key(1, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        for (int trial = 0; trial < 10; ++trial) {
            const reference::Rows rows = reference::random_rows(random, 4, 6, 4);
            // A reflection along a random normal vector, then another: a rotation.
            reference::Rows rotated = rows;
            for (int reflection = 0; reflection < 2; ++reflection) {
                reference::Row axis(6);
                for (double& x : axis) x = random.normal();
                const double square = reference::dot(axis, axis);
                for (reference::Row& row : rotated) {
                    const double along = 2 * reference::dot(axis, row) / square;
                    for (std::size_t k = 0; k < 6; ++k) row[k] -= along * axis[k];
                }
            }
            const auto expected = run(name, reference::gramian_of(rows))->weights;
            const auto found = run(name, reference::gramian_of(rotated))->weights;
            for (std::size_t i = 0; i < 4; ++i) {
                REQUIRE(found[i] == Approx(expected[i]).margin(1e-9));
            }
        }
    }
}

TEST_CASE("aggregators: weights are finite, one per task, for every rank and scale") {
    Random random(random_key(2, Purpose::test));
    for (const std::string& name : aggregator_names()) {
        for (const std::size_t tasks : {0, 1, 2, 5, 9}) {
            for (std::size_t rank = 0; rank <= tasks; ++rank) {
                for (const double scale : {1e-12, 1.0, 1e12}) {
                    const Gramian g = reference::gramian_of(reference::random_rows(
                        random, tasks, 10, rank, std::vector<double>(tasks, scale)));
                    const auto output = run(name, g);
                    REQUIRE(output.has_value());
                    REQUIRE(output->weights.size() == tasks);
                    for (const double w : output->weights) REQUIRE(std::isfinite(w));
                }
            }
        }
    }
}

TEST_CASE("aggregators: a task whose gradient holds NaN or Inf is named, and no other") {
    for (const std::string& name : aggregator_names()) {
        for (const double bad :
             {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
            Gramian g = reference::gramian_of({{1, 0}, {0, 1}, {1, 1}});
            for (std::size_t k = 0; k < 3; ++k) g.at(1, k) = g.at(k, 1) = bad;
            const auto output = run(name, g);
            REQUIRE(output.has_error());
            REQUIRE(output.error().code == ErrorCode::not_finite);
            REQUIRE(output.error().text.find("task 1") != std::string::npos);
            REQUIRE(output.error().text.find("task 0") == std::string::npos);
            REQUIRE(output.error().text.find("task 2") == std::string::npos);
        }
    }
}

TEST_CASE("aggregators: a loss that is not finite is named") {
    const Gramian g = reference::gramian_of({{1, 0}, {0, 1}});
    const std::vector<double> losses = {1.0, std::numeric_limits<double>::quiet_NaN()};
    for (const std::string& name : aggregator_names()) {
        const auto output = run(name, g, losses);
        REQUIRE(output.has_error());
        REQUIRE(output.error().code == ErrorCode::not_finite);
        REQUIRE(output.error().text.find("loss of task 1") != std::string::npos);
    }
}

TEST_CASE("aggregators: an unknown method is refused and the nearest one named") {
    const auto method = make_aggregator({"pc_grad", {}});
    REQUIRE(method.has_error());
    REQUIRE(method.error().code == ErrorCode::bad_job);
    REQUIRE(method.error().text.find("'pc_grad'; did you mean 'pcgrad'?") != std::string::npos);
}

TEST_CASE("aggregators: an unknown parameter is refused and the nearest one named") {
    const auto misspelt = make_aggregator({"pcgrad", {{"oder", "1;0"}}});
    REQUIRE(misspelt.has_error());
    REQUIRE(misspelt.error().code == ErrorCode::bad_job);
    REQUIRE(misspelt.error().text.find("'oder'; did you mean 'order'?") != std::string::npos);
    const auto superfluous = make_aggregator({"mgda", {{"c", "0.5"}}});
    REQUIRE(superfluous.has_error());
    REQUIRE(superfluous.error().text.find("takes no parameters, but found 'c'") !=
            std::string::npos);
    const auto twice = make_aggregator({"pcgrad", {{"order", "1;0"}, {"order", "1;0"}}});
    REQUIRE(twice.has_error());
    REQUIRE(twice.error().text.find("twice") != std::string::npos);
}

TEST_CASE("aggregators: every parameter has a meaning to show") {
    for (const std::string& name : aggregator_names()) {
        AggregatorConfig config{name, {}};
        for (const auto& [key, meaning, standard] : aggregator_parameters(name)) {
            REQUIRE_FALSE(key.empty());
            REQUIRE_FALSE(meaning.empty());
            config.parameters.emplace_back(key, standard);
        }
        REQUIRE(make_aggregator(config).has_value());  // the defaults, written out
    }
    REQUIRE(aggregator_parameters("pcgrad").size() == 1);
    REQUIRE(aggregator_parameters("no such method").empty());
}

}  // namespace detente
