// The state of the policy that decides whole steps, in the lead shard's slice of a checkpoint: its
// numbers, not what was buffered, whose bytes are in no checkpoint. Pure functions.
#pragma once

#include <optional>
#include <string>

#include "common/result.h"
#include "common/staleness/policy.h"

namespace detente {

std::string saved_policy(const std::string& name, const PolicyState& state);
// Nothing: of another policy than `name`, which begins anew. bad_checkpoint: no text of ours.
Result<std::optional<PolicyState>> restored_policy(const std::string& name,
                                                   const std::string& saved);

}  // namespace detente
