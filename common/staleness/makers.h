// How a policy's file offers itself to the catalog. A new policy is a file with one such function,
// declared here, and a line in the catalog.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/staleness/parameters.h"
#include "common/staleness/policy.h"

namespace detente {

struct PolicyEntry {
    std::string name;  // in job files
    std::vector<ParameterSpec> parameters;
    // The values are checked one by one; a maker refuses (bad_job) what does not go together.
    Result<std::unique_ptr<const Policy>> (*make)(const Parameters& parameters);
};

// The two outcomes most policies know: this gradient alone, with the rate scaled; and too stale.
inline ApplyThese alone(const Arrived& arrived, double step_scale = 1) {
    return {{{arrived.subject, 1}}, 1, static_cast<float>(step_scale)};
}
inline RejectThis too_stale(const Arrived& arrived) {
    return {arrived.subject, Advice::refresh, ErrorCode::over_limit};
}

// Gradients that one update may average: each is kept whole until then, on every shard.
inline constexpr double kMostAveraged = 4096;

PolicyEntry async_policy();
PolicyEntry bounded_reject_policy();
PolicyEntry bsp_policy();
PolicyEntry backup_workers_policy();
PolicyEntry ssp_policy();
PolicyEntry dssp_policy();
PolicyEntry softsync_policy();
PolicyEntry inverse_policy();
PolicyEntry polynomial_policy();
PolicyEntry hinge_policy();
PolicyEntry ada_delay_policy();
PolicyEntry delay_adaptive_policy();
PolicyEntry dc_asgd_policy();
PolicyEntry gap_aware_policy();
PolicyEntry dana_zero_policy();
PolicyEntry dana_slim_policy();
PolicyEntry fedbuff_policy();
PolicyEntry easgd_policy();
PolicyEntry rennala_policy();
PolicyEntry ringmaster_policy();
PolicyEntry delayed_nesterov_policy();
PolicyEntry capacity_policy();
PolicyEntry sync_switch_policy();
PolicyEntry kardam_policy();

}  // namespace detente
