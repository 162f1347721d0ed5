// ssp's promise, and dssp's: no worker is given weights for a clock that is further than the bound
// from the slowest member's. Watched from outside the policy: the bound is the job's, and each
// step that was decided must have moved its worker's clock by one.
//
// Thread: the world's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "common/config.h"
#include "common/ledger_entry.h"
#include "ps/lead.h"

namespace detente {

class ClockInvariants {
  public:
    // nullptr: the job's policy has no clocks.
    static std::unique_ptr<ClockInvariants> create(const Job& job);

    // A shard hands out weights.
    void pulled(NodeId shard, const PullRecord& record);
    // A step ends without a push: its worker's clock stays where it is.
    void closed(const ClosedRecord& record);
    // A shard has taken an event; `lead`: it is the lead. What is broken, as a sentence.
    std::optional<std::string> after(const Lead* lead);
    // Shards of a new epoch: clocks begin anew.
    void restarted();

  private:
    explicit ClockInvariants(std::uint64_t bound) : bound_(bound) {}
    std::optional<std::string> read(const Lead& lead);
    std::optional<std::string> check(const PullRecord& record);

    struct Clock {
        double at = 0;
        std::optional<double> started;  // of the step it was last given weights for
        Step step;
    };
    std::uint64_t bound_;
    std::map<WorkerId, Clock> clocks_;  // of members
    double slowest_ = 0;
    std::set<std::tuple<NodeId, WorkerId, Incarnation, Step>> seen_;
    std::vector<PullRecord> started_;  // within the event
};

}  // namespace detente
