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

PolicyEntry async_policy();
PolicyEntry bounded_reject_policy();
PolicyEntry inverse_policy();

}  // namespace detente
