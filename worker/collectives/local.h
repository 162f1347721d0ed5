// Members within one process, for tests: what the contract asks at its plainest, to hold the other
// backends against, and a group without processes for tests of what uses one. No job can ask for
// it. The member that arrives last sums; nobody has to wait for a thread to run.
//
// Threads: members may live on different threads, each collective on its own. What they share is
// behind one mutex per group, held for bookkeeping and never while summing.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "worker/collectives/collective.h"

namespace detente {

class LocalGroup;

// Where the members of a process meet; shared by their backends.
class LocalHub {
  public:
    // Attaches a member. wrong_epoch: the epoch is not above this member's last, or the group has
    // other members for those that came first.
    Result<std::shared_ptr<LocalGroup>> attach(const Group& group, WorkerId self);

  private:
    std::mutex mutex_;
    std::map<WorkerId, GroupEpoch> last_;
    // Kept until every member has come or is of a later epoch: whoever comes last must learn what
    // became of the group, even when all others have left it.
    struct Known {
        std::shared_ptr<LocalGroup> until_all_came;
        std::weak_ptr<LocalGroup> group;
    };
    bool all_came(const Group& group) const;
    std::map<std::pair<GroupEpoch, WorkerId>, Known> groups_;
};

class LocalBackend final : public CollectiveBackend {
  public:
    explicit LocalBackend(std::shared_ptr<LocalHub> hub) : hub_(std::move(hub)) {}
    const char* name() const override { return "local"; }
    // Does not wait: a member that never comes is missed at the first key's deadline.
    Result<std::unique_ptr<Collective>> form(const Group& group, WorkerId self,
                                             Nanos deadline) override;

  private:
    std::shared_ptr<LocalHub> hub_;
};

}  // namespace detente
