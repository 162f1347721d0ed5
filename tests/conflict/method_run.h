// Makes methods and runs them on whole rows, for tests.
#pragma once

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/conflict/dense_aggregation.h"
#include "tests/reference/conflict_reference.h"

namespace detente::test {

using ParameterTexts = std::vector<std::pair<std::string, std::string>>;

inline std::shared_ptr<const Aggregator> made(const std::string& name,
                                              const ParameterTexts& parameters = {}) {
    auto method = make_aggregator({name, parameters});
    if (!method) FAIL(method.error().text);
    return std::shared_ptr<const Aggregator>(std::move(*method));
}

// What a method is given that has no losses or second batch of its own to bring: losses of 1, 2, …
// and the rows again.
inline DenseStep step_of(const reference::Rows& rows, std::vector<double> losses = {}) {
    DenseStep step{rows, std::move(losses), rows};
    if (step.losses.empty()) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            step.losses.push_back(1 + static_cast<double>(i));
        }
    }
    return step;
}

inline DenseResult run(const std::string& name, const reference::Rows& rows,
                       const ParameterTexts& parameters = {}, std::vector<double> losses = {}) {
    DenseAggregation aggregation(made(name, parameters), 7);
    auto result = aggregation.step(step_of(rows, std::move(losses)));
    if (!result) FAIL(name << ": " << result.error().text);
    return std::move(*result);
}

// The fewest tasks a method works on under its defaults.
inline std::size_t least_tasks(const std::string& name) {
    return name == "krum" || name == "trimmed_mean" ? 3 : 1;
}

inline void require_near(const std::vector<double>& found, const std::vector<double>& expected,
                         double margin) {
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        CAPTURE(i);
        REQUIRE(found[i] == Approx(expected[i]).margin(margin).epsilon(0));
    }
}

inline double length(const std::vector<double>& v) { return std::sqrt(reference::dot(v, v)); }
inline double longest(const reference::Rows& rows) {
    double most = 0;
    for (const auto& row : rows) most = std::max(most, length(row));
    return most;
}

}  // namespace detente::test
