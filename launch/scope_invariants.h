// What a live change of scope promises (ps/shard_scopes.cpp): a step is judged one way on all
// shards, by the lead or by each of them alone; and while the lead shard's gate is shut, from the
// decision to step scope until every shard has made the change, it hands out no weights of a step
// beyond the last ones that the decision names.
//
// Watched over what leaves nodes and what shards write down. With one shard no decision leaves it:
// then the gate is not watched, and there is nothing it could tear. Keeps an entry per step.
//
// Thread: the world's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "common/config.h"
#include "common/ids.h"
#include "common/ledger_entry.h"
#include "common/messages.h"

namespace detente {

class ScopeInvariants {
  public:
    ScopeInvariants(const Job& job, std::size_t shards);

    // A decision leaves the lead shard; doubles change nothing.
    void decided(const StageDecision& decision);
    // A shard has made the next change of policy.
    void changed(NodeId shard);
    // A shard judges a part; what is broken, as a sentence.
    std::optional<std::string> judged(NodeId shard, const VerdictRecord& record);
    // A shard hands out weights.
    std::optional<std::string> handed_out(NodeId shard, const PullRecord& record);
    // The job is begun again, under its own policy.
    void restarted();

  private:
    struct Gate {
        std::uint64_t change = 0;  // counted from 1
        std::map<WorkerId, PushId> last;
    };
    bool is_open(const Gate& gate) const;

    Job job_;
    std::size_t shards_;
    bool steps_;                            // by the last decision that was seen
    std::uint64_t newest_ = 0;              // its number
    std::uint64_t changes_ = 0;             // decided
    std::map<NodeId, std::uint64_t> made_;  // by each shard
    std::optional<Gate> gate_;
    struct Way {
        NodeId shard;
        bool by_lead = false;
    };
    std::map<std::tuple<WorkerId, Incarnation, Step>, Way> ways_;
};

}  // namespace detente
