// Names in job files to rules, and what is refused before one is made.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <optional>

#include "common/nearest_name.h"
#include "common/rules/makers.h"
#include "common/rules/rule.h"

namespace detente {
namespace {

using Maker = std::unique_ptr<const Rule> (*)(const RuleConfig&);

struct Entry {
    const char* name;
    Maker make;
    bool has_momentum;
    bool has_nesterov;
    bool has_accumulator;
    double learning_rate;
    double eps;
    double weight_decay;
};
constexpr std::array<Entry, 5> kRules = {{
    {"sgd", make_sgd, true, true, false, 1e-3, 1e-8, 0},
    {"adagrad", make_adagrad, false, false, true, 1e-2, 1e-10, 0},
    {"rmsprop", make_rmsprop, true, false, false, 1e-2, 1e-8, 0},
    {"adam", make_adam, false, false, false, 1e-3, 1e-8, 0},
    {"adamw", make_adamw, false, false, false, 1e-3, 1e-8, 1e-2},
}};

const Entry* find(std::string_view name) {
    for (const Entry& entry : kRules) {
        if (entry.name == name) return &entry;
    }
    return nullptr;
}

Error unknown_rule(std::string_view name) {
    std::string listed;
    for (const std::string& valid : rule_names()) listed += (listed.empty() ? "" : ", ") + valid;
    return fail(ErrorCode::bad_job,
                fmt::format("no update rule is called '{}'; did you mean '{}'? Valid: {}", name,
                            nearest_name(name, rule_names()), listed));
}

// One parameter and where it has to lie: [lowest, below), or any finite number from `lowest` up.
struct Bound {
    const char* key;
    double value;
    double below;
};

std::optional<Error> out_of_range(const RuleConfig& config) {
    const std::array<Bound, 9> bounds = {{
        {"learning_rate", config.learning_rate, INFINITY},
        {"momentum", config.momentum, 1},
        {"weight_decay", config.weight_decay, INFINITY},
        {"beta1", config.beta1, 1},
        {"beta2", config.beta2, 1},
        {"eps", config.eps, INFINITY},
        {"alpha", config.alpha, 1},
        {"initial_accumulator_value", config.initial_accumulator_value, INFINITY},
        {"clip_value", config.clip_value, INFINITY},
    }};
    for (const Bound& bound : bounds) {
        if (bound.value >= 0 && bound.value < bound.below) continue;  // false for NaN
        const std::string wanted = std::isinf(bound.below)
                                       ? std::string("finite and at least 0")
                                       : fmt::format("at least 0 and below {}", bound.below);
        return fail(ErrorCode::bad_job, fmt::format("rule '{}': {} must be {}, found {}",
                                                    config.name, bound.key, wanted, bound.value));
    }
    return std::nullopt;
}

std::optional<Error> not_of_this_rule(const Entry& entry, const RuleConfig& config) {
    const char* key = nullptr;
    const char* owners = nullptr;
    if (!entry.has_momentum && config.momentum != 0) {
        key = "momentum";
        owners = "sgd and rmsprop";
    } else if (!entry.has_nesterov && config.nesterov) {
        key = "nesterov";
        owners = "sgd";
    } else if (!entry.has_accumulator && config.initial_accumulator_value != 0) {
        key = "initial_accumulator_value";
        owners = "adagrad";
    }
    if (key == nullptr) return std::nullopt;
    return fail(ErrorCode::bad_job,
                fmt::format("rule '{}' has no {} (only {}): remove it", config.name, key, owners));
}

}  // namespace

std::vector<std::string> rule_names() {
    std::vector<std::string> names;
    names.reserve(kRules.size());
    for (const Entry& entry : kRules) names.emplace_back(entry.name);
    return names;
}

Result<RuleConfig> rule_defaults(std::string_view name) {
    const Entry* entry = find(name);
    if (entry == nullptr) return unknown_rule(name);
    RuleConfig config;
    config.name = entry->name;
    config.learning_rate = entry->learning_rate;
    config.eps = entry->eps;
    config.weight_decay = entry->weight_decay;
    return config;
}

Result<std::unique_ptr<const Rule>> make_rule(const RuleConfig& config) {
    const Entry* entry = find(config.name);
    if (entry == nullptr) return unknown_rule(config.name);
    if (auto error = out_of_range(config)) return *error;
    if (auto error = not_of_this_rule(*entry, config)) return *error;
    if (config.nesterov && config.momentum == 0) {
        return fail(ErrorCode::bad_job,
                    "rule 'sgd': nesterov needs a momentum above 0, found 0: set momentum (0.9 is "
                    "common) or remove nesterov");
    }
    return entry->make(config);
}

}  // namespace detente
