// What the members of one local group share: below local.cpp only.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "worker/collectives/collective.h"

namespace detente {

// Thread: any; every method locks. Invariant: a key's outcome is settled once, for all members.
class LocalGroup {
  public:
    using Place = std::pair<Step, Bucket>;

    explicit LocalGroup(Group group);

    const Group& group() const { return group_; }
    bool attach(std::size_t member);  // false: it was there already
    void leave(std::size_t member);
    void join(std::size_t member, const Place& place, GradientShare share);
    // Breaks the group over this member; see Collective::give_up.
    void give_up(std::size_t member, const CollectiveKey& key, const Error& why);
    // Breaks the group for a key whose deadline has passed, unless it is settled by now.
    void miss(const Place& place);
    // The outcome of a key this member has joined, once it is settled; then the member has it. Sums
    // if all are there and nobody does yet.
    std::optional<CollectiveEnd> take(std::size_t member, const Place& place);
    std::optional<Broken> broken() const;

    std::uint64_t notices() const;
    // Until the number of notices is no longer `seen`, or `at_most` has passed.
    void wait(std::uint64_t seen, Nanos at_most);
    void notice();

  private:
    enum class State { collecting, summing, settled };
    struct Entry {
        State state = State::collecting;
        std::uint64_t joined = 0;  // as bits, like all sets of members
        std::uint64_t taken = 0;
        std::vector<GradientShare> shares;
        std::variant<Averaged, Weightless, Broken> result;
    };

    std::uint64_t all() const { return (std::uint64_t{1} << group_.members.size()) - 1; }
    void break_locked(std::uint64_t missing, ErrorCode code, const std::string& text);
    // The result of a complete entry; unlocks while it sums.
    void settle(Entry& entry, std::unique_lock<std::mutex>& lock);

    const Group group_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<Place, Entry> entries_;
    std::optional<Broken> broken_;
    std::uint64_t attached_ = 0;
    std::uint64_t notices_ = 0;
};

}  // namespace detente
