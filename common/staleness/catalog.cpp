// Names in job files to policies.
#include <fmt/format.h>

#include <optional>

#include "common/nearest_name.h"
#include "common/staleness/makers.h"

namespace detente {
namespace {

// In the order shown to users.
std::vector<PolicyEntry> all_policies() {
    return {async_policy(), bounded_reject_policy(), inverse_policy()};
}

std::optional<PolicyEntry> find(const std::string& name) {
    for (PolicyEntry& entry : all_policies()) {
        if (entry.name == name) return entry;
    }
    return std::nullopt;
}

}  // namespace

const char* name_of(Scope scope) {
    switch (scope) {
        case Scope::block:
            return "block";
        case Scope::step:
            return "step";
    }
    return "unknown scope";
}

std::vector<std::string> policy_names() {
    std::vector<std::string> names;
    for (const PolicyEntry& entry : all_policies()) names.push_back(entry.name);
    return names;
}

std::vector<std::pair<std::string, std::string>> policy_parameters(const std::string& policy) {
    std::vector<std::pair<std::string, std::string>> explained;
    const std::optional<PolicyEntry> entry = find(policy);
    if (!entry) return explained;
    for (const ParameterSpec& spec : entry->parameters) {
        explained.emplace_back(spec.name, explain(spec));
    }
    return explained;
}

Result<std::unique_ptr<const Policy>> make_policy(const PolicyConfig& config) {
    const std::optional<PolicyEntry> entry = find(config.name);
    if (!entry) {
        const std::vector<std::string> names = policy_names();
        return fail(
            ErrorCode::bad_job,
            fmt::format("no staleness policy is called '{}'; did you mean '{}'? Valid: {}",
                        config.name, nearest_name(config.name, names), fmt::join(names, ", ")));
    }
    const Result<Parameters> parameters = Parameters::parse(config, entry->parameters);
    if (parameters.has_error()) return parameters.error();
    return entry->make(*parameters);
}

}  // namespace detente
