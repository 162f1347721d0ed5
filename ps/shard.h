// A shard: one thread's worth of blocks, judged and updated by one state machine. It receives a
// push, judges it, applies it, replies; nothing is shared between shards.
//
// Owner: one loop; on() is only called there. Invariants: each part of a push is judged at most
// once per incarnation of its worker; versions grow by exactly one per apply; the books balance
// after every event; a reply's blocks are what the shard holds when the reply leaves.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/config.h"
#include "common/partition/plan.h"
#include "common/runtime/contracts.h"
#include "common/staleness/staleness_bins.h"
#include "ps/block_store.h"
#include "ps/by_worker.h"
#include "ps/duplicates.h"
#include "ps/lead.h"
#include "ps/leases.h"

namespace detente {

// What a restored shard takes over of one that made the checkpoint: of its own predecessor, or,
// where blocks have moved because the number of shards changed, the lead shard of all of them.
struct FormerShard {
    bool same_blocks = false;      // lived with the same blocks: its verdicts are still of use
    std::string duplicates;        // Duplicates::save(); empty = not saved
    std::vector<LostRecord> lost;  // applied after the checkpoint, as its ledger tells
};

struct ShardSetup {
    ShardId id;
    std::shared_ptr<const Job> job;
    std::shared_ptr<const Plan> plan;
    std::uint64_t training_samples = 0;
    Epoch epoch{1};  // one more than the checkpoint's after a restore
    // Contents from a checkpoint; empty = wait for Initialise.
    std::vector<std::pair<BlockId, BlockContents>> restored;
    std::string restored_rules;   // rules_of() the job that made the checkpoint; empty = not known
    std::string restored_leases;  // lead shard: Leases::save() of the checkpoint
    std::string restored_policy;  // lead shard: saved_policy() of the checkpoint (step scope)
    std::string restored_from;    // for the ledger: which checkpoint; empty = none
    std::vector<FormerShard> former;
};

// The update rules of a job as text, saved with optimizer state: "adam, sgd for heads.*".
std::string rules_of(const Job& job);

class Shard : public Node {
  public:
    // bad_job, bad_checkpoint: a rule, policy or checkpoint that does not fit the plan.
    static Result<std::unique_ptr<Shard>> create(ShardSetup setup);

    void on(Event&& event, Time now, Effects& effects) override;

    const Books& books() const { return duplicates_.books(); }
    // For tests and the simulator's invariants.
    BlockStore& store() { return store_; }
    const Leases& leases() const { return leases_; }
    std::size_t members() const { return workers_.size(); }
    bool drained() const { return stopping_ && stopping_->drain; }  // asked to end in good order
    const Lead* lead() const { return lead_.get(); }  // nullptr: another shard is the lead
    std::uint64_t staged_bytes() const;               // of gradients, under step scope
    // What a shard whose workers have all left still keeps for one of them, as a sentence.
    std::optional<std::string> leftover() const;

    static constexpr std::uint64_t kMostPullBytes = 8U << 20U;

  private:
    // After a restore (shard_restore.cpp).
    Result<void> take_over(const std::vector<FormerShard>& former);
    void record_restored();
    void answer_lost(const Envelope& from, const Push& body, const std::vector<LiveBlock*>& blocks);

    enum TimerKind : std::uint32_t {
        kHeartbeat = 1,
        kDeferredDeadline = 2,
        kRepeat = 3,
        kStop = 4
    };

    Shard(ShardSetup setup, BlockStore store, const std::optional<PolicyState>& policy_before);

    // One per message kind (shard_messages.cpp, shard_push.cpp).
    void receive(Message&& message);
    bool from_known_worker(const Envelope& envelope, Step step, Part part);
    void welcomed();
    void initialise(const Envelope& from, const Initialise& body);
    void pull(const Envelope& from, const PullRequest& body);
    void push(Message&& message);
    void cancel(const Envelope& from, const CancelNote& body);
    void lease(const Envelope& from, const LeaseRequest& body);
    void farewell(const Envelope& from, const Farewell& body);
    void checkpoint(const CheckpointRequest& body);
    void make_slice(const CheckpointRequest& body);
    void slice_in_order(const CheckpointRequest& body);  // by a decision of the lead
    void stored(const Stored& event);
    void peer_down(const PeerDown& event);
    void stop(const Stop& body);

    // Under which decision of the lead a push was settled, and its share of an average.
    struct Folded {
        Sequence decision;
        float gradient_weight = 1;
        double denominator = 1;
    };

    // Pushes.
    enum class Judged { yes, no_spare };
    Judged judge(const Envelope& from, const Push& body);
    std::uint64_t most_samples(const Push& body) const;
    Result<void> check_part(const Push& body, std::vector<LiveBlock*>& blocks) const;
    // The block's rate by its schedule, if it was applied; 0 if not.
    double judge_block(LiveBlock& block, const GradientBlock& gradient, const Envelope& from,
                       const Push& push, BlockVerdict& verdict);
    void reply_to_push(const Envelope& from, const Push& body,
                       const std::vector<BlockVerdict>& verdicts);
    void record_push(const Envelope& from, const Push& body,
                     const std::vector<BlockVerdict>& verdicts, const std::vector<double>& rates,
                     const Folded& folded, Time arrived);
    void retry_deferred();
    void deferred_too_long();

    // Steps decided by the lead (shard_steps.cpp, shard_lead.cpp).
    struct StagedPart {
        Envelope from;
        Push push;
        Time arrived;
    };
    struct StagedStep {
        std::vector<StagedPart> parts;
        std::uint32_t expected = 1;
        bool refused = false;
        bool buffered = false;  // its worker was told to go on
        StageNotice notice;
        std::size_t blocks = 0;
        bool complete() const { return refused || parts.size() >= expected; }
        // bad_message: this part and the first are not of one gradient.
        Result<void> agrees_with(const Push& push) const;
    };
    struct HeldWorker {
        std::vector<std::pair<Envelope, Push>> pushes;  // headers; verdicts are in duplicates_
        std::map<std::uint32_t, std::pair<Envelope, PullRequest>> asked;  // by request
    };
    // The weights one step of a worker is given, and its requests that came before they were due.
    struct Cut {
        PushId step;
        bool made = false;
        bool copied = false;
        std::map<BlockId, WeightBlock> weights;
        std::map<std::uint32_t, std::pair<Envelope, PullRequest>> asked;  // by request
    };
    bool decides_steps() const { return store_.step_policy() != nullptr; }
    using Answers = std::vector<std::pair<Envelope, Push>>;  // headers of pushes
    void stage(const Envelope& from, const Push& body);
    StagedStep& keep_part(const Envelope& from, const Push& body,
                          const std::vector<LiveBlock*>& blocks, Result<void> sound);
    Result<void> check_gradients(const Push& body, const std::vector<LiveBlock*>& blocks,
                                 WorkerId worker) const;
    void acknowledge(WorkerId worker, Step step);
    void notify_lead(StagedStep& step);
    void stage_notice(const Envelope& from, const StageNotice& notice);
    void take_decision(const Envelope& from, StageDecision&& decision);
    void act();  // on the decisions that are due
    bool commit(const StepCommit& commit, Sequence decision);
    void abort(const StepAbort& abort, Sequence decision, Answers& answers);
    // Pulls of one place in the lead's order (shard_cuts.cpp).
    bool keeps_cuts() const;
    // True: answered when that place is reached. Requires: keeps_cuts().
    bool awaits_cut(const Envelope& from, const PullRequest& body);
    void make_cut(const PushId& step);
    // Makes copies of what cuts hold, so that updates find spares; false: nothing was held.
    bool copy_cuts();
    void drop_cut(WorkerId worker, Step up_to);
    void decide_part(const PushId& push, StagedPart& part, std::vector<BlockVerdict> verdicts,
                     const std::map<BlockId, double>& rates, const Folded& folded);
    void answer(const Envelope& from, const Push& push);
    void release(WorkerId worker);
    // The lead's own shard holds whom the lead holds, though it waits to act on that: the policy is
    // told of the weights it hands out, and would take the worker for one that computes.
    bool held(WorkerId worker) const {
        return held_.contains(worker) || (lead_ != nullptr && lead_->holds(worker));
    }
    void wait(const Envelope& to, Step step, Part part, std::uint32_t request, WaitFor why);
    // The lead shard's own affairs: sends what was decided, and who has work now.
    void lead_on();
    void lead_membership();
    void repeat_unanswered();
    void repeat_later();
    void resend_decisions();
    // Live changes (shard_changes.cpp).
    void change_policy(const PolicyChange& body);
    Result<std::unique_ptr<const Policy>> checked(const PolicyChange& body) const;
    void adopt(const PolicyChange& change, Sequence sequence);
    // Between block scope and step scope (shard_scopes.cpp).
    struct Gate {
        std::uint64_t number = 0;  // of the decision that shuts it
        std::map<WorkerId, PushId> last;
    };
    bool would_decide_steps(const Policy& policy, std::optional<Admission> asked) const;
    bool changes_scope() const;  // decided, and not made by every shard yet
    std::vector<ShardId> takes_part() const;
    Result<void> can_change_scope(const Policy& policy, std::optional<Admission> asked) const;
    Sequence shut_gate(const PolicyChange& change);
    bool beyond_gate(const Envelope& from, Step step) const;
    bool asks_early(const Envelope& from, Step step) const;
    // Whether what must be settled before this decision is.
    bool is_due(const StageDecision& decision) const;
    void begin_steps(const PolicyConfig& config);
    void end_steps();
    void refuse_left_out(const PushId& step);
    void restart_idle();
    // What waited for a change of scope, or for verdicts, and need not wait any more; true: any.
    bool let_go();
    std::string whom_gate_waits_for() const;
    void drop_incomplete(WorkerId worker, Incarnation incarnation);
    void lose_part(const PushId& push, StagedPart& part);
    void forget_if_gone(WorkerId worker);
    std::vector<Duplicates::ClosedBy> kept_steps() const;  // whose bytes no checkpoint holds
    void try_to_stop();

    // Replies.
    void reply(const Envelope& to, Body body);
    // Counts it, and logs the first of its kind per peer.
    void count_refused(const Envelope& from, const Error& error);
    void refuse(const Envelope& to, Error error, Step step, Part part, std::uint32_t request = 0);
    std::vector<WeightBlock> weights_of(const std::vector<LiveBlock*>& blocks, WorkerId worker);
    bool open_step(const Envelope& from, Step step, Part part);
    void record_pull(const Envelope& from, Step step, const std::vector<LiveBlock*>& blocks);
    void record_closed(WorkerId worker, Incarnation incarnation,
                       const std::vector<Duplicates::Closed>& closed, bool lost,
                       const std::string& reason);
    void answer_leases();
    // Whom tasks are placed on (common/partition/task_placement.h).
    const std::vector<WorkerId>& members_for_tasks();
    void note_gone(WorkerId worker, bool gone);
    void record_control(std::string what);
    Status status() const;
    void heartbeat();

    ShardSetup setup_;
    BlockStore store_;
    Duplicates duplicates_;
    Leases leases_;
    // Pushes that found no spare, in order of arrival; nothing overtakes them.
    std::deque<Message> deferred_;
    TimerId deferred_deadline_;
    std::map<std::uint64_t, CheckpointReply> checkpoints_;  // by ticket
    ByWorker<Incarnation> workers_;                         // spoken to and not gone
    // Lost, or left, or places that nobody has had; whoever the job begins with and was not heard
    // of yet is not among them.
    std::set<WorkerId> gone_;
    std::vector<WorkerId>
        task_members_;  // the others; empty: not listed since somebody came or went

    std::vector<LostRecord> taken_back_;                 // until they are in the ledger
    std::vector<Duplicates::ClosedBy> lost_by_restore_;  // the same
    std::uint64_t updates_taken_back_ = 0;
    // Step scope.
    std::unique_ptr<Lead> lead_;  // on the lead shard, in block scope too
    bool repeats_ = false;        // a kRepeat timer is running
    std::map<PushId, StagedStep> staged_;
    // Parts that come later get that verdict.
    std::map<PushId, std::pair<StepAbort, Sequence>> aborted_;
    std::map<WorkerId, HeldWorker> held_;
    std::map<WorkerId, Cut> cuts_;
    std::map<std::uint64_t, StageDecision> decisions_;  // not acted on yet, by number
    std::uint64_t acted_ = 0;                           // on every decision up to this number
    std::size_t commits_done_ = 0;                      // of the decision that is due
    std::uint64_t model_version_ = 0;
    Answers to_answer_;
    std::map<WorkerId, Step> opened_;  // lead: the step a worker computes
    // Changes of scope.
    Admission admission_;                      // lead: as the last change decided has it
    bool scope_changed_ = false;               // since this shard began
    std::optional<Gate> gate_;                 // lead
    std::map<WorkerId, HeldWorker> let_wait_;  // beyond the gate, or before their verdicts
    std::optional<CheckpointRequest> asked_;   // the last one of the coordinator
    std::uint64_t newest_slice_ = 0;           // numbers of checkpoints
    std::uint64_t newest_ordered_slice_ = 0;   // of those, by a decision
    std::optional<Stop> stopping_;
    Time stop_by_{};

    bool welcomed_ = false;
    bool stopped_ = false;
    std::uint64_t pushes_ = 0;
    std::uint64_t push_bytes_ = 0;
    std::uint64_t pulls_ = 0;
    std::uint64_t repeated_ = 0;  // re-sent or doubled messages answered from memory
    std::map<ErrorCode, std::uint64_t> refused_;
    std::map<std::pair<WorkerId, ErrorCode>, bool> refusal_logged_;
    // Applied block updates (common/staleness/staleness_bins.h).
    std::vector<std::uint64_t> staleness_ = std::vector<std::uint64_t>(kExactStaleness);
    double staleness_sum_ = 0;
    std::uint64_t staleness_max_ = 0;

    // Valid during on() only.
    Time now_{};
    Effects* effects_ = nullptr;
};

}  // namespace detente
