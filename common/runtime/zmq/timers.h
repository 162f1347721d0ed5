// The timers of one loop: a min-heap ordered by time, then by age. Cancelled ones are skipped when
// they surface, and swept out when they outnumber the live. Owned by the loop's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente {

class TimerHeap {
  public:
    void start(TimerId id, Time at, Tag tag);
    void cancel(TimerId id);  // a fired or unknown timer is ignored
    // Takes the earliest timer that is due at `now`, if any.
    std::optional<TimerFired> take_due(Time now);
    std::optional<Time> earliest();
    std::size_t live() const { return tags_.size(); }

  private:
    struct Entry {
        Time at;
        std::uint64_t id;
        auto operator<=>(const Entry&) const = default;
    };
    void drop_cancelled();

    std::vector<Entry> heap_;
    std::unordered_map<std::uint64_t, Tag> tags_;  // of live timers
};

}  // namespace detente
