// The keys a member has begun and not ended, with their deadlines, and what every backend refuses.
// Thread: that of the collective it belongs to.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "worker/collectives/collective.h"

namespace detente {

// wrong_epoch unless the group's epoch is above `last`, which this member was in before (0: none).
Result<void> check_epoch(const Group& group, WorkerId self, GroupEpoch last);

class KeysInFlight {
  public:
    // Whether begin() may take this; see Collective::begin.
    Result<void> check(const Group& group, const std::optional<Broken>& broken,
                       const CollectiveKey& key, const GradientShare& share) const;
    void add(const CollectiveKey& key, Time deadline) { deadlines_.emplace(key, deadline); }
    void remove(const CollectiveKey& key) { deadlines_.erase(key); }

    bool empty() const { return deadlines_.empty(); }
    std::vector<CollectiveKey> all() const;
    std::vector<CollectiveKey> overdue(Time now) const;  // the deadline is not after now
    std::optional<Time> next_deadline() const;

  private:
    std::map<CollectiveKey, Time> deadlines_;
};

}  // namespace detente
