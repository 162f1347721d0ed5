// Names in job files to policies.
#include <fmt/format.h>

#include <optional>

#include "common/nearest_name.h"
#include "common/staleness/makers.h"

// One line per policy: NAME of its NAME_policy(), which describes it. In the order of --explain and
// of lists in errors.
#define DETENTE_POLICIES(POLICY) \
    POLICY(async)                \
    POLICY(bounded_reject)       \
    POLICY(bsp)                  \
    POLICY(backup_workers)       \
    POLICY(ssp)                  \
    POLICY(dssp)                 \
    POLICY(softsync)             \
    POLICY(inverse)              \
    POLICY(polynomial)           \
    POLICY(hinge)                \
    POLICY(ada_delay)            \
    POLICY(delay_adaptive)       \
    POLICY(dc_asgd)              \
    POLICY(gap_aware)            \
    POLICY(dana_zero)            \
    POLICY(dana_slim)            \
    POLICY(fedbuff)              \
    POLICY(easgd)                \
    POLICY(rennala)              \
    POLICY(ringmaster)           \
    POLICY(delayed_nesterov)     \
    POLICY(capacity)             \
    POLICY(sync_switch)          \
    POLICY(kardam)

namespace detente {

#define DETENTE_DECLARE(name) PolicyEntry name##_policy();
DETENTE_POLICIES(DETENTE_DECLARE)
#undef DETENTE_DECLARE

namespace {

std::vector<PolicyEntry> all_policies() {
#define DETENTE_LIST(name) name##_policy(),
    return {DETENTE_POLICIES(DETENTE_LIST)};
#undef DETENTE_LIST
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

std::vector<ParameterSpec> parameter_specs(const std::string& policy) {
    const std::optional<PolicyEntry> entry = find(policy);
    return entry ? entry->parameters : std::vector<ParameterSpec>{};
}

std::vector<ExplainedParameter> policy_parameters(const std::string& policy) {
    std::vector<ExplainedParameter> explained;
    for (const ParameterSpec& spec : parameter_specs(policy)) {
        explained.push_back({spec.name, explain(spec), standard_text(spec)});
    }
    return explained;
}

bool decides_steps(Admission admission, const Policy& policy) {
    return admission == Admission::step || policy.scope() == Scope::step;
}

bool decides_steps(const Job& job) {
    const auto policy = make_policy(job.policy);
    if (policy.has_error()) return job.admission == Admission::step;  // refused elsewhere
    return decides_steps(job.admission, **policy);
}

Result<void> check_asked(Admission admission, const Policy& policy) {
    if (admission == Admission::step || policy.scope() == Scope::block) return {};
    return fail(ErrorCode::bad_job,
                fmt::format("staleness.admission = \"block\" contradicts staleness.policy = '{}', "
                            "which decides whole steps: leave staleness.admission out, or choose "
                            "a policy of scope block",
                            policy.name()));
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
