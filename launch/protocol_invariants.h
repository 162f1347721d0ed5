// What must hold of a simulated run beyond each shard's own books, watched event by event over what
// shards write into their ledgers, what leaves nodes, and what shards hold afterwards:
//   - a block's version grows by one per update, and weights are handed out at the version there
//   is;
//   - a gradient is applied at most once, and acknowledged as applied only when it is;
//   - staleness is what the versions say; a bounded policy applies nothing past its bound and
//     rejects nothing within it: per block, under step scope per push, over all its shards
//     (protocol_bounds.cpp);
//   - what a worker computes at never goes back within an epoch, block by block (but where
//     simulate.staleness imposes it; an average of layers in step is as old as its oldest part);
//   - step scope: every shard applies the same pushes in the same order, and no push is applied
//     here and rejected there;
//   - folding what was applied over the first weights gives the weights, to the bit. Under policies
//     that correct gradients, each is corrected again, with vectors and weights of then that are
//     kept here besides (protocol_fold.cpp);
//   - what a shard's ledger says makes its books;
//   - a restored shard is in a new epoch, holds what its checkpoint held, and lists every update
//     applied since as lost, each once and with a reason;
//   - no node is handed a message of an older generation;
//   - clocks keep their bound (launch/clock_invariants.h);
//   - no step is torn by a live change of scope (launch/scope_invariants.h).
// It keeps an entry per update: for runs of minutes, not of days.
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

#include "common/books.h"
#include "common/ledger_controls.h"
#include "common/ledger_entry.h"
#include "common/partition/plan.h"
#include "common/rules/rule.h"
#include "common/staleness/policy.h"
#include "launch/clock_invariants.h"
#include "launch/scope_invariants.h"
#include "ps/policy_vectors.h"
#include "ps/shard.h"
#include "ps/task_memory.h"

namespace detente {

// For messages.
std::string text_of(WorkerId worker, Incarnation incarnation, Step step);
inline std::string text_of(const VerdictRecord& record) {
    return text_of(record.worker, record.incarnation, record.step);
}

class ProtocolInvariants {
  public:
    // bad_job: a rule or policy that cannot be made.
    static Result<std::unique_ptr<ProtocolInvariants>> create(const Job& job,
                                                              std::shared_ptr<const Plan> plan);

    // A message leaves its sender; the envelope says whose it is.
    void sent(const Message& message);
    // A shard writes this down. Requires: at once, in the order of its events.
    void recorded(NodeId shard, const LedgerEntry& entry);
    // A shard has taken an event and sent nothing yet. What is broken, as a sentence; the first
    // finding stays.
    std::optional<std::string> after(NodeId id, Shard& shard);
    // A shard or worker is about to be handed this, in a run of this generation.
    void handed(NodeId id, const Event& event, Generation generation);
    // The shards that are added from now on come from this checkpoint of the shards so far;
    // nothing: from another run's (protocol_restart.cpp).
    void resumed(std::optional<std::uint64_t> checkpoint);
    std::optional<std::string> broken() const { return broken_; }

    // Updates folded again and compared, for tests that ask whether anything was looked at.
    std::uint64_t folded() const { return folded_; }

  private:
    using Update = std::tuple<WorkerId, Incarnation, Step>;
    using BlockUpdate = std::tuple<WorkerId, Incarnation, Step, BlockId>;
    struct Part {  // of an update: a gradient as it was sent
        float weight = 1;
        Payload gradient;
        Arrived arrived;
        Version base;
        TaskSet tasks;
    };
    struct Followed {  // a block as the records tell it
        bool known = false;
        Epoch epoch{1};
        Version version;
        std::uint64_t updates = 0;
        std::unique_ptr<AlignedBuffer> weights;
        std::unique_ptr<AlignedBuffer> slots;
        std::optional<Update> last;
        // What the newest version is made of, not applied yet: one gradient, or an average's.
        std::vector<Part> parts;
        double denominator = 1;
        double learning_rate = 0;
        std::uint32_t samples = 0;
        std::uint64_t samples_applied = 0;  // before those
        TaskMemory memory;                  // [across]
        // Of policies that correct gradients.
        PolicyState policy_state;
        PolicyVectors vectors;
    };

    // A block as it was when a checkpoint was made of it.
    struct Kept {
        Epoch epoch;
        Version version;
        std::uint64_t updates = 0;
        std::shared_ptr<const AlignedBuffer> weights;
        std::shared_ptr<const AlignedBuffer> slots;
        SavedMemory memory;
        std::string policy;
        PolicyState policy_state;
        SavedVectors vectors;
    };
    struct KeptShard {
        std::map<BlockId, Kept> blocks;
        Books told;
    };

    ProtocolInvariants(const Job& job, std::shared_ptr<const Plan> plan)
        : job_(job), plan_(std::move(plan)), scopes_(job, plan_->by_shard.size()) {}
    void follow(Followed& followed, const LiveBlock& block);
    void verdict(NodeId shard, const VerdictRecord& record);
    // Whether the lead shard has decided that.
    bool of_step(const VerdictRecord& record) const {
        return scope_changed_ ? record.decision != Sequence{} : steps_;
    }
    void row(const VerdictRecord& record, const VerdictRecord::Row& row);
    void applied(const VerdictRecord& record, const VerdictRecord::Row& row, Followed& followed);
    void same_everywhere(NodeId shard, const VerdictRecord& record);
    void handed_out(const PullRecord& record);
    void compare(const LiveBlock& block);
    void fail_with(std::string text);
    void fail_if(std::optional<std::string> wrong) {
        if (wrong) fail_with(std::move(*wrong));
    }
    // What updates make of the weights (protocol_fold.cpp).
    void keep(const BlockUpdate& update, const VerdictRecord& record, const VerdictRecord::Row& row,
              Followed& followed);
    void fold(BlockId block, Followed& followed);
    // The one part, resolved against the other tasks' as the shard does it.
    const std::byte* resolved(const Block& planned, Followed& followed, const Part& part);
    // Each part as the policy corrects it, averaged.
    const std::byte* corrected(const Block& planned, Followed& followed,
                               const std::vector<Part>& parts);
    void hand_out(BlockId block, WorkerId worker, Followed& followed);
    void forgotten(NodeId shard, WorkerId worker);
    // Another policy keeps what it keeps of these blocks from here on.
    void begin_anew(NodeId shard, const Policy& policy);
    // Bounds and reads (protocol_bounds.cpp).
    const Policy& policy_of(BlockId block) const;
    void policy_changes(NodeId shard, const ChangedPolicy& change);
    void within_bound(const VerdictRecord& record, const VerdictRecord::Row& row);
    void past_bound(const VerdictRecord& record, const VerdictRecord::Row& row);
    void computed_at(NodeId worker, Incarnation incarnation, const Push& push);
    void compare_books(NodeId id, Shard& shard);
    // Checkpoints and restarts (protocol_restart.cpp).
    void keep_checkpoint(NodeId shard, std::uint64_t number);
    void listed_as_lost(const LostRecord& record);
    void restored(const LiveBlock& block);
    bool same_policy_vectors(const LiveBlock& block, const Kept& kept) const;
    void all_listed(NodeId shard);

    Job job_;
    std::shared_ptr<const Plan> plan_;
    bool steps_ = false;          // by the job the lead shard decides
    bool scope_changed_ = false;  // since: each record says by itself
    std::vector<std::unique_ptr<const Policy>> policies_;
    std::vector<std::unique_ptr<const Rule>> rules_;
    std::vector<float> clip_values_;
    std::vector<float> scratch_;  // a gradient that is applied
    std::vector<double> sum_;
    std::vector<float> before_;
    std::vector<float> beside_;
    std::map<BlockId, Followed> blocks_;
    std::map<BlockUpdate, Payload> gradients_;  // sent, and not judged yet
    std::map<BlockUpdate, std::pair<Epoch, Version>> applied_;
    std::set<std::tuple<WorkerId, Step, BlockId>> acknowledgeable_;
    // Step scope.
    std::vector<Update> order_;
    std::map<NodeId, std::size_t> position_;
    std::map<NodeId, Update> last_on_;
    std::map<Update, Verdict> decided_;
    struct TooStale {  // a push rejected as such, until all its blocks' shards have said so
        std::size_t blocks = 0;
        std::uint64_t staleness = 0;  // of the stalest
    };
    std::map<Update, TooStale> too_stale_;
    std::size_t trainable_ = 0;  // blocks
    // Where another policy than the job's was set while it ran.
    std::map<NodeId, std::unique_ptr<const Policy>> changed_;
    struct Read {  // what a worker last computed at
        Incarnation incarnation;
        Step step;
        Epoch epoch;
        Version version;
    };
    std::map<std::pair<WorkerId, BlockId>, Read> reads_;
    std::unique_ptr<ClockInvariants> clocks_;
    ScopeInvariants scopes_;
    std::map<NodeId, Books> told_;  // what a shard's records add up to
    // By number of the checkpoint.
    std::map<std::uint64_t, std::map<NodeId, KeptShard>> kept_;
    // After a restart.
    std::map<BlockId, Kept> restored_;                                // until looked at
    std::map<BlockUpdate, std::pair<Epoch, Version>> still_to_list_;  // as lost
    std::set<NodeId> not_started_;                                    // shards
    bool from_elsewhere_ = false;
    Epoch newest_epoch_{0};
    std::uint64_t folded_ = 0;
    std::optional<std::string> broken_;
};

}  // namespace detente
