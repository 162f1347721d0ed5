// What nodes write into their ledgers as text: shards about restores and changes of policy, workers
// about what their conflict method goes on from; and how a replay reads it back: both halves of
// each text in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/config.h"
#include "common/ids.h"
#include "common/ledger_entry.h"
#include "common/messages.h"

namespace detente {

// A shard began with what a checkpoint has for it.
struct RestoredFrom {
    std::string directory;  // of the checkpoint
    Epoch epoch;            // of all that follows
    bool operator==(const RestoredFrom&) const = default;
};
ControlRecord restored_shard(const RestoredFrom& from, std::uint64_t updates_lost);
std::optional<RestoredFrom> restored_from(const ControlRecord& record);

// "'ssp' bound = 3": a policy as these texts name it.
std::string text_of(const PolicyConfig& policy);

ControlRecord policy_changed(const PolicyChange& change, const std::string& former,
                             Sequence decision);
struct ChangedPolicy {
    PolicyConfig policy;
    std::optional<Admission> admission;  // nothing = as before: ledgers of wire 7 and below
};
// None: not about a change, a text of another build of this program, or damaged.
std::optional<ChangedPolicy> changed_policy(const ControlRecord& record);

// Of a change that is made some time after it was decided: the lead shard's word at once, and that
// of whoever ends before it has made it. Neither is a change.
ControlRecord policy_change_decided(const PolicyChange& change, Sequence decision);
ControlRecord policy_change_overtaken(const PolicyChange& change, Sequence decision);

// A worker's averages with its node are summed by a library, in an order that nothing records.
ControlRecord summed_by(const std::string& backend);
std::optional<std::string> summed_elsewhere(const ControlRecord& record);  // by whom

// A worker's conflict method begins with what it, or whoever had its place before, remembered; to
// the last bit.
ControlRecord method_goes_on(const MethodState& state);
std::optional<MethodState> method_went_on(const ControlRecord& record);

}  // namespace detente
