// The lead shard's half of step scope: collects what the shards have staged, asks the policy once
// per push, numbers the decisions, and keeps each until every shard has it.
//
// In block scope, where shards judge by themselves, it numbers changes of policy, and checkpoints
// while such a change is on its way.
//
// Owner: the lead shard's loop. Pure: no clock, no messages. Invariants: a push is decided at most
// once; decisions are numbered without gaps; every shard is given the same ones, in that order; a
// push is committed only if every shard has staged it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/staleness/policy.h"

namespace detente {

class Lead {
  public:
    // What a policy is told of the model at an arrival.
    struct Standing {
        std::uint64_t updates = 0;
        std::uint64_t samples_applied = 0;
        double learning_rate = 0;
        double progress = 0;
        double at_s = 0;
    };

    // `policy` decides; nullptr in block scope. `shards` are those a push has parts for, of
    // `all_shards`, which all act on decisions; workers 0 to `workers` − 1 are members at first.
    // `saved`: the policy's state in the checkpoint that the cluster comes from.
    Lead(std::unique_ptr<const Policy> policy, std::vector<ShardId> shards,
         std::uint32_t all_shards, std::uint32_t workers, Epoch epoch,
         const std::optional<PolicyState>& saved = {});

    // A shard has staged a push, or refused it. Repeated notices change nothing.
    void noticed(ShardId shard, const StageNotice& notice, const Standing& standing);
    // The worker is handed weights for this step.
    void pulled(WorkerId worker, Step step);
    // It will push; it will not for now; it is gone, and what it has not staged everywhere with it.
    void joined(WorkerId worker);
    void left(WorkerId worker);
    void lost(WorkerId worker, Incarnation incarnation);
    // This step is handed weights of one point of the shards' order; asked again, nothing changes.
    void cut(const PushId& step);
    // All shards make a checkpoint at one point of their order.
    void checkpoint(const CheckpointRequest& request);
    // From the next event on `policy` decides, in place of the one so far: that one's buffered
    // gradients are applied, as if its members had left, or aborted, and its held workers released
    // unless `policy` holds them too; all of it under the number that is returned. nullptr: nobody
    // decides steps any more; what is not decided by then the shards judge block by block.
    Sequence change(const PolicyChange& change, std::unique_ptr<const Policy> policy);
    // Out of block scope: each shard makes the change when it has settled the steps `last`, one of
    // each worker, and those before them. Requires: !decides().
    Sequence change_to_steps(const PolicyChange& change, std::vector<PushId> last);
    // The lead shard has made that change: `policy` decides what `shards` stage. The model's
    // versions go on from `version` at least.
    void begin_steps(std::unique_ptr<const Policy> policy, std::vector<ShardId> shards,
                     std::uint64_t version);
    bool decides() const { return policy_ != nullptr; }
    // By the latest decision, whether or not a shard has acted on it.
    bool holds(WorkerId worker) const { return held_.contains(worker); }
    // The shard has applied every decision up to this one.
    void applied(ShardId shard, Sequence sequence);

    // Decisions made since the last call, to be sent to every shard.
    std::vector<StageDecision> decisions();
    // Workers to be told to stop computing and start anew, since the last call.
    std::vector<WorkerId> restarts();
    // What the shard has not confirmed, oldest first, at most `most`.
    std::vector<StageDecision> unconfirmed(ShardId shard, std::size_t most) const;
    // Whether every shard has confirmed what became of every push.
    bool pushes_confirmed() const;
    bool all_confirmed() const { return log_.empty(); }
    // Whether every shard has confirmed the decisions up to this number.
    bool confirmed(std::uint64_t number) const {
        return log_.empty() || log_.front().sequence.number > number;
    }

    std::uint64_t version() const { return version_; }
    const std::set<WorkerId>& members() const { return members_; }
    const PolicyState& state() const { return state_; }  // the policy's
    // Pushes that are staged somewhere and not decided, for status and deadlines.
    std::size_t undecided() const { return pending_.size(); }
    // Shards whose notice the oldest undecided push lacks; empty if the policy keeps it.
    std::vector<ShardId> awaited() const;

  private:
    struct Pending {
        Subject subject = 0;  // 0: not handed to the policy yet
        std::uint64_t version = 0;
        bool refused = false;
        ErrorCode reason = ErrorCode::internal;
        std::set<ShardId> shards;
        std::map<BlockId, Measured> measured;
    };
    // `decision`: what has been decided of that event before the policy is asked.
    void hand(const PolicyEvent& event, StageDecision decision = {});
    void ask(const PolicyEvent& event, StageDecision& decision);  // adds what comes of it
    void commit(const ApplyThese& apply, StageDecision& decision);
    void abort(const PushId& push, Advice advice, ErrorCode reason, StageDecision& decision);
    void decide(StageDecision&& decision);
    bool decided(const PushId& push) const;
    bool dead(const PushId& push) const;
    void note_decided(const PushId& push);
    PushId push_of(Subject subject) const;

    std::unique_ptr<const Policy> policy_;
    std::vector<ShardId> shards_;
    Epoch epoch_;
    PolicyState state_;
    std::set<WorkerId> members_;
    std::map<PushId, Pending> pending_;
    std::map<Subject, PushId> subjects_;
    // The latest steps decided of a worker's newest incarnation.
    struct Decided {
        Incarnation incarnation{0};
        bool gone = false;
        std::set<Step> steps;
    };
    std::map<WorkerId, Decided> decided_;
    std::map<WorkerId, PushId> cuts_;             // the latest step of each
    std::map<WorkerId, PushId> alone_;            // the last step judged block by block
    std::deque<StageDecision> log_;               // not confirmed by all
    std::map<ShardId, std::uint64_t> confirmed_;  // highest number applied
    std::vector<StageDecision> fresh_;
    std::vector<WorkerId> restarts_;
    std::set<WorkerId> held_;  // as shards have them
    std::uint64_t number_ = 0;
    std::uint64_t version_ = 0;
    Subject last_subject_ = 0;
};

}  // namespace detente
