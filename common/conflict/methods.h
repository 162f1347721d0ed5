// What an aggregator's file gives to the catalog: one function that describes the method. A new
// method is a file with its class and its description, a declaration here, and its place in
// catalog.cpp's list.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/result.h"

namespace detente::methods {

struct Method {
    std::string name;
    // Under the paper's names. A job's config holds each of them, at `standard` where the file said
    // nothing; a config made in code may leave them out.
    std::vector<ExplainedParameter> parameters;
    // The catalog has checked that every name in the config is one of `parameters` and comes once;
    // values are checked here (bad_job).
    Result<std::unique_ptr<const Aggregator>> (*make)(const AggregatorConfig& config);
};

Method sum();
Method mean();
Method mgda();
Method pcgrad();

// The text of a parameter, if the config gives it.
std::optional<std::string_view> parameter(const AggregatorConfig& config, std::string_view name);
// not_finite, naming the first task with NaN or Inf in its gradient or its loss.
Result<void> check_finite(const AggregatorInput& input);
// Whether every gradient is zero, as far as G can tell.
bool all_zero(const Gramian& gramian);

}  // namespace detente::methods
