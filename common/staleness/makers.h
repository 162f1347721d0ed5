// What a policy's file offers to the catalog: one function that describes the policy, `PolicyEntry
// NAME_policy()`, as in inverse.cpp, or in ringmaster.cpp where there are parameters and a state. A
// new policy is a file with its class and that function, and one line, POLICY(NAME), in
// catalog.cpp.
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

// So many members, of whom nothing is known yet.
inline PolicyState members(std::size_t workers) {
    PolicyState state;
    for (std::uint32_t i = 0; i < workers; ++i) state.workers[WorkerId{i}];
    return state;
}

// The two outcomes most policies know: this gradient alone, with the rate scaled; and too stale.
inline ApplyThese alone(const Arrived& arrived, double step_scale = 1) {
    return {{{arrived.subject, 1}}, 1, static_cast<float>(step_scale)};
}
inline RejectThis too_stale(const Arrived& arrived) {
    return {arrived.subject, Advice::refresh, ErrorCode::over_limit};
}

// Gradients that one update may average: each is kept whole until then, on every shard.
inline constexpr double kMostAveraged = 4096;

}  // namespace detente
