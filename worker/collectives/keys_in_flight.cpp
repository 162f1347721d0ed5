#include "worker/collectives/keys_in_flight.h"

#include <algorithm>

#include "common/invariant.h"

namespace detente {

Result<void> check_epoch(const Group& group, WorkerId self, GroupEpoch last) {
    if (group.epoch > last) return {};
    return fail(ErrorCode::wrong_epoch, to_string(node_of(self)) + " asks for a group of epoch " +
                                            std::to_string(group.epoch.value) +
                                            ", but was in one of epoch " +
                                            std::to_string(last.value) +
                                            "; a group that is formed anew takes a higher one");
}

Result<void> KeysInFlight::check(const Group& group, const std::optional<Broken>& broken,
                                 const CollectiveKey& key, const GradientShare& share) const {
    if (key.epoch != group.epoch) {
        return fail(ErrorCode::wrong_epoch, "this group is of epoch " +
                                                std::to_string(group.epoch.value) +
                                                "; refused: " + to_string(key));
    }
    if (broken) return broken->error;
    if (deadlines_.size() >= kMostKeysInFlight) {
        return fail(ErrorCode::over_limit, std::to_string(kMostKeysInFlight) +
                                               " keys are in flight; refused: " + to_string(key) +
                                               "; begin it when one of them has ended");
    }
    invariant(!deadlines_.contains(key), "a key is begun once");
    return check_share(share);
}

std::vector<CollectiveKey> KeysInFlight::all() const {
    std::vector<CollectiveKey> keys;
    keys.reserve(deadlines_.size());
    for (const auto& [key, deadline] : deadlines_) keys.push_back(key);
    return keys;
}

std::vector<CollectiveKey> KeysInFlight::overdue(Time now) const {
    std::vector<CollectiveKey> keys;
    for (const auto& [key, deadline] : deadlines_) {
        if (deadline <= now) keys.push_back(key);
    }
    return keys;
}

std::optional<Time> KeysInFlight::next_deadline() const {
    std::optional<Time> nearest;
    for (const auto& [key, deadline] : deadlines_) {
        nearest = nearest ? std::min(*nearest, deadline) : deadline;
    }
    return nearest;
}

}  // namespace detente
