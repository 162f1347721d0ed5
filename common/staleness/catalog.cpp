// Names in job files to policies.
#include <fmt/format.h>

#include <optional>

#include "common/nearest_name.h"
#include "common/staleness/makers.h"

namespace detente {
namespace {

// In the order shown to users.
std::vector<PolicyEntry> all_policies() {
    return {async_policy(),
            bounded_reject_policy(),
            bsp_policy(),
            backup_workers_policy(),
            ssp_policy(),
            dssp_policy(),
            softsync_policy(),
            inverse_policy(),
            polynomial_policy(),
            hinge_policy(),
            ada_delay_policy(),
            delay_adaptive_policy(),
            dc_asgd_policy(),
            gap_aware_policy(),
            dana_zero_policy(),
            dana_slim_policy(),
            fedbuff_policy(),
            easgd_policy(),
            rennala_policy(),
            ringmaster_policy(),
            delayed_nesterov_policy(),
            capacity_policy(),
            sync_switch_policy(),
            kardam_policy()};
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

std::vector<ExplainedParameter> policy_parameters(const std::string& policy) {
    std::vector<ExplainedParameter> explained;
    const std::optional<PolicyEntry> entry = find(policy);
    if (!entry) return explained;
    for (const ParameterSpec& spec : entry->parameters) {
        explained.push_back({spec.name, explain(spec), standard_text(spec)});
    }
    return explained;
}

bool decides_steps(const Job& job) {
    if (job.admission == Admission::step) return true;
    const auto policy = make_policy(job.policy);
    return policy.has_value() && (*policy)->scope() == Scope::step;
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
