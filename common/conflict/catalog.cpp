// Names in job files to aggregators, and what is refused before one is made.
#include <fmt/format.h>

#include <algorithm>

#include "common/conflict/methods.h"
#include "common/nearest_name.h"

namespace detente {
namespace {

// In the order of --explain and of lists in errors.
std::vector<methods::Method> all_methods() {
    return {
        methods::sum(),
        methods::mean(),
        methods::pcgrad(),
        methods::mgda(),
    };
}

std::string joined(const std::vector<std::string>& names) {
    return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::vector<std::string> aggregator_names() {
    std::vector<std::string> names;
    for (const methods::Method& method : all_methods()) names.push_back(method.name);
    return names;
}

std::vector<ExplainedParameter> aggregator_parameters(const std::string& name) {
    for (const methods::Method& method : all_methods()) {
        if (method.name == name) return method.parameters;
    }
    return {};
}

Result<std::unique_ptr<const Aggregator>> make_aggregator(const AggregatorConfig& config) {
    const std::vector<methods::Method> all = all_methods();
    const auto method = std::find_if(
        all.begin(), all.end(), [&](const methods::Method& m) { return m.name == config.name; });
    if (method == all.end()) {
        const std::vector<std::string> names = aggregator_names();
        return fail(ErrorCode::bad_job,
                    fmt::format("no aggregator is called '{}'; did you mean '{}'? Valid: {}",
                                config.name, nearest_name(config.name, names), joined(names)));
    }
    std::vector<std::string> valid;
    for (const auto& parameter : method->parameters) valid.push_back(parameter.name);
    for (std::size_t i = 0; i < config.parameters.size(); ++i) {
        const std::string& key = config.parameters[i].first;
        if (valid.empty()) {
            return fail(ErrorCode::bad_job, fmt::format("aggregator '{}' takes no parameters, but "
                                                        "found '{}'; leave it out",
                                                        config.name, key));
        }
        if (std::find(valid.begin(), valid.end(), key) == valid.end()) {
            return fail(ErrorCode::bad_job,
                        fmt::format("aggregator '{}' has no parameter '{}'; did you mean '{}'? "
                                    "Valid: {}",
                                    config.name, key, nearest_name(key, valid), joined(valid)));
        }
        for (std::size_t j = 0; j < i; ++j) {
            if (config.parameters[j].first != key) continue;
            return fail(ErrorCode::bad_job, fmt::format("aggregator '{}': parameter '{}' is given "
                                                        "twice; leave one out",
                                                        config.name, key));
        }
    }
    return method->make(config);
}

}  // namespace detente
