// Names in job files to aggregators, and what is refused before one is made.
#include <fmt/format.h>

#include <algorithm>

#include "common/conflict/composed.h"
#include "common/conflict/methods.h"
#include "common/nearest_name.h"

// One line per method: the name of the function that describes it, in namespace methods. In the
// order of --explain and of lists in errors.
#define DETENTE_METHODS(METHOD) \
    METHOD(sum)                 \
    METHOD(mean)                \
    METHOD(constant)            \
    METHOD(pcgrad)              \
    METHOD(gradvac)             \
    METHOD(mgda)                \
    METHOD(cagrad)              \
    METHOD(nash)                \
    METHOD(fairgrad)            \
    METHOD(imtl_g)              \
    METHOD(aligned)             \
    METHOD(dualproj)            \
    METHOD(upgrad)              \
    METHOD(config)              \
    METHOD(gradnorm)            \
    METHOD(sdmgrad)             \
    METHOD(modo)                \
    METHOD(moco)                \
    METHOD(uw)                  \
    METHOD(imtl_l)              \
    METHOD(dwa)                 \
    METHOD(rlw)                 \
    METHOD(gls)                 \
    METHOD(famo)                \
    METHOD(stch)                \
    METHOD(db_mtl)              \
    METHOD(excess_mtl)          \
    METHOD(krum)                \
    METHOD(graddrop)            \
    METHOD(trimmed_mean)

namespace detente {
namespace methods {

#define DETENTE_DECLARE(method) Method method();
DETENTE_METHODS(DETENTE_DECLARE)
#undef DETENTE_DECLARE

}  // namespace methods

namespace {

std::vector<methods::Method> all_methods() {
#define DETENTE_LIST(method) methods::method(),
    std::vector<methods::Method> all = {DETENTE_METHODS(DETENTE_LIST)};
#undef DETENTE_LIST
    for (methods::Method& method : all) {
        for (ExplainedParameter& every : composition_parameters()) {
            method.parameters.push_back(std::move(every));
        }
    }
    return all;
}

std::string joined(const std::vector<std::string>& names) {
    return fmt::format("{}", fmt::join(names, ", "));
}

// Unknown or doubled names.
Result<void> check_names(const AggregatorConfig& config, const methods::Method& method) {
    std::vector<std::string> valid;
    for (const auto& parameter : method.parameters) valid.push_back(parameter.name);
    for (std::size_t i = 0; i < config.parameters.size(); ++i) {
        const std::string& key = config.parameters[i].first;
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
    return {};
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

std::string aggregator_paper(const std::string& name) {
    for (const methods::Method& method : all_methods()) {
        if (method.name == name) return method.paper;
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
    if (const auto good = check_names(config, *method); !good) return good.error();
    auto made = method->make(config);
    if (!made) return made.error();
    return composed(std::move(*made), config);
}

}  // namespace detente
