// A worker: leases a batch, pulls weights, has gradients computed, resolves their conflicts,
// pushes, and reads the verdicts. It knows no LibTorch, no socket and no clock: computing is an
// effect too.
//
// Owner: one loop; on() is only called there. Invariants: each computed gradient has a step number
// of its own; every step opened at a shard is settled there before the farewell; no batch is
// computed twice unless a rejection asks for it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/conflict/interference.h"
#include "common/ledger_entry.h"
#include "common/partition/plan.h"
#include "common/partition/task_placement.h"
#include "common/runtime/contracts.h"
#include "worker/pull_spread.h"
#include "worker/resolver.h"
#include "worker/shard_client.h"
#include "worker/step_time.h"
#include "worker/sync_rounds.h"

namespace detente {

struct WorkerSetup {
    WorkerId id;
    std::shared_ptr<const Job> job;
    std::shared_ptr<const Plan> plan;
    std::vector<std::string> tasks;      // names, in order
    std::vector<std::string> layers{};   // shared ones, for the ledger (partition/layers.h)
    std::uint64_t training_samples = 0;  // of the model's dataset
    // Where its computer keeps vectors from step to step (worker/kept_vectors.h): the folder of the
    // run's checkpoints, for its last word. Empty: it keeps none.
    std::string checkpoint_dir{};
    // Under worker.split_tasks, of all workers on this thread; null: one of its own.
    std::shared_ptr<TaskPlacement> placement{};
};

class Worker : public Node {
  public:
    // bad_job: an aggregator that cannot be made.
    static Result<std::unique_ptr<Worker>> create(WorkerSetup setup);

    void on(Event&& event, Time now, Effects& effects) override;

    std::uint64_t steps_computed() const { return steps_computed_; }
    std::uint64_t credit_in_use() const;  // bytes, of all shards together

  private:
    enum TimerKind : std::uint32_t { kHeartbeat = 1, kOverdue = 2, kPass = 3 };
    enum class Phase { joining, initialising, ready, training, settling, leaving, done };

    // What compensating a rejected gradient needs; kept where the job asks for it only.
    struct Kept {
        std::uint32_t samples = 0;
        std::uint64_t gradient_hash = 0;
        std::map<BlockId, Payload> weights;  // it was computed at
        std::map<BlockId, Payload> gradient;
    };
    struct Batch {
        std::uint32_t data_epoch = 0;
        std::uint32_t index = 0;
        std::uint32_t recomputes = 0;
        std::vector<BlockId> only;         // after a partial rejection: the blocks to compute again
        std::shared_ptr<Kept> rejected{};  // to be compensated; null: to be computed
        TaskSet tasks{};                   // for which; empty: all
        BatchRange range() const { return {data_epoch, index, 1, tasks}; }
        bool repairs() const { return recomputes > 0 || !only.empty(); }
    };
    // A step whose weights are on their way or here.
    struct Preparing {
        Step step;
        std::size_t missing = 0;
        std::vector<WeightBlock> weights;
    };
    // A step whose gradient is being computed (both halves).
    struct Computing {
        Step step;
        Batch batch;
        Ticket ticket;
        bool combining = false;
        bool cancelled = false;
        bool restarts = false;  // cancelled to be computed at newer weights
        Step opens;             // push_pull
        std::uint32_t samples = 0;
        std::uint64_t gradient_hash = 0;
        Time began;
        std::map<BlockId, std::pair<Epoch, Version>> base;
        std::shared_ptr<Kept> kept;
        // Of a round with its node ([sync]); round {0}: none, or it was given up.
        bool in_step = false;
        Step round;
        GradientWork measured;  // what is to be measured when the averages are there
        std::optional<GradientOutcome> own;
        Time own_since;
        bool averaged = false;
        GroupEpoch group;  // whose round it is
        TaskSet brought;   // whose rows are with the others, and not in the ledger yet
        std::vector<BlockId> in_step_rejected;  // by a word that came before the own push was made
        bool in_step_dropped = false;
        bool pushes_in_step = true;  // and not another of its node
        std::uint32_t node_samples = 0;
        struct PartPlace {
            std::size_t client = 0;
            bool in_step = false;
            Part part;
            std::uint32_t parts = 0;
            std::vector<BlockId> blocks;
        };
        std::vector<PartPlace> places;           // of CombineWork::layout
        std::optional<ResolvedRecord> resolved;  // waits for what came of it
    };
    // A step whose verdicts are awaited.
    struct Settling {
        Step step;
        Batch batch;
        std::size_t parts_missing = 0;
        std::vector<std::size_t> partial_clients;  // got fewer blocks than they opened
        std::vector<std::size_t> left_out;         // of those: got none
        bool whole = false;                        // it is decided as a whole: they know
        std::vector<BlockId> rejected;
        std::shared_ptr<Kept> kept;
        Time began;
        bool in_step = false;             // of a round with its node
        Step round;                       // whose end is awaited; {0}: none
        std::size_t in_step_missing = 0;  // verdicts, where this worker pushed for its node
        std::vector<BlockId> in_step_rejected;
        bool dropped = false;  // the node's push was never made
    };

    // Vectors on their way to the worker's file of a checkpoint, or to its last word.
    struct Saving {
        std::string path;
        Ticket computes;
        Ticket stores;
        bool storing = false;
        bool told = false;  // how it ended, or that it is late: what is still to come is nobody's
        Time since;
        std::vector<Payload> pieces;
        CheckpointReply answer;
    };

    Worker(WorkerSetup setup, Resolver resolver);

    // Messages (worker_messages.cpp).
    void receive(Message&& message);
    void begin(const Welcome& welcome);
    // Whether every block has the checksum it was sent with.
    bool unaltered(const std::vector<WeightBlock>& blocks);
    void weights_arrived(Step step, std::vector<WeightBlock> blocks);
    void leased(const LeaseReply& reply);
    // The lead shard has the request, and no batch for it yet.
    bool lease_waits(const Wait& wait);
    // Again if overdue; timed_out, naming the lead shard, when it has been silent for too long.
    Result<void> send_overdue_lease_again();
    // While this process stood still nobody's silence counts: what came is not read yet.
    void forgive_own_absence();
    void verdicts_arrived(std::size_t client, PushReply&& reply, Nanos handled);
    void settle(Settling& settling);
    // The lead shard decides steps as wholes, and this one is staged.
    void step_is_whole(Step step);
    void finish_or_repair(Batch batch, const std::vector<BlockId>& rejected,
                          std::shared_ptr<Kept> kept, bool dropped);
    void on_overdue();
    void heartbeat();
    Status status() const;
    void note_waiting(Status& status) const;

    // Steps (worker.cpp).
    void advance();
    void open_next_step();
    Step new_preparing(std::size_t blocks);
    bool remembered(Step step) const;
    void fetch_anew();
    void start_gradient();
    void computed(ComputeEnded&& event);
    void resolve(GradientOutcome&& outcome);
    void note_resolved(const std::vector<double>& losses, const Gramian& gramian);
    void note_cosines(const Gramian& gramian);
    void note_undecided();
    // Batches, and whose they are (worker_leases.cpp).
    void ask_for_batches(bool wants_more);
    void send_lease_request();
    void place_tasks(const std::vector<WorkerId>& members);
    void take_granted(const LeaseReply& reply);
    void forget_losses();
    // The next one; where there are several tasks, they take turns.
    Batch take_batch();
    // Whether the step under way is of a task that owns it.
    bool of_step(const Block& block) const;
    bool of_all_tasks() const { return !setup_.job->split_tasks; }
    // Rounds with the workers of its node (worker_rounds.cpp).
    bool joins_round(const Batch& batch);
    void open_round();
    void own_gradient(GradientOutcome&& outcome);
    // Of the round under way, if there is one: what is in its averages, for a replay.
    void record_share(std::uint64_t gradient_hash);
    void measure_averages();
    void round_ended(const SyncRounds::Ended& ended);
    void tell_node(Settling& settling);
    // Without blocks in step, unless all of them are there.
    std::vector<BlockId> repairable(std::vector<BlockId> rejected) const;
    void form_group(const FormGroup& form);
    void group_formed(const GroupFormed& event);
    void group_lost(const std::vector<WorkerId>& missing, const Error& error);
    void give_up_rounds();
    void pass_rounds();
    bool idle_but_for_rounds() const;
    std::uint32_t samples_in(const Batch& batch) const;

    // Figures of each task beside what is counted of pairs.
    void note_tasks(const Gramian& gramian, const std::vector<TaskSet>& members,
                    const CombineWork& work);
    // For the worker's ledger, as ledger.conflicts says.
    void record_resolved(const std::vector<double>& losses, const Gramian& gramian,
                         const std::vector<Gramian>& layers, const std::vector<TaskSet>& members,
                         CombineWork& work);
    void record_result(const CombineOutcome& outcome);
    bool records_conflicts() const;
    MethodState method_state();
    std::string task_list() const;
    // Kept vectors on their way to a file (worker_saving.cpp).
    void save_for(const CheckpointRequest& request);
    bool last_word_saved();
    void begin_saving(const std::string& folder, CheckpointReply answer);
    void give_up_overdue_savings();
    bool saving_part(const ComputePart& event);
    bool saving_computed(const ComputeEnded& event);
    void saving_stored(const Stored& event);
    void saving_ended(Saving& saving, const std::optional<Error>& error);
    // The parts of the step's push; it is settling from here on.
    std::vector<std::vector<BlockId>> lay_out_push();
    void compensate(const std::vector<WeightBlock>& weights);
    void combine(CombineWork work);
    void part_computed(const ComputePart& event);
    void restart(Step step);
    void end_cancelled();
    void finish_batch(const Batch& batch);
    void close_step(Step step, CancelReason reason);
    void drain(const std::string& why);
    void leave();
    void fail_with(Error error);
    // A gradient that cannot be used: the step is given up, or the run ends, as the job says.
    void not_usable(Error error);

    WorkerSetup setup_;
    Resolver resolver_;
    std::vector<ShardClient> clients_;
    SyncRounds rounds_;
    std::uint32_t since_round_ = 0;  // gradients begun
    bool pass_timer_ = false;
    Phase phase_ = Phase::joining;
    bool final_lease_ = false;
    bool farewells_sent_ = false;

    Step next_step_{1};
    bool verdict_first_ = false;  // weights are asked for only when the verdicts are in
    bool pulled_all_ = false;     // frozen blocks too
    bool ahead_is_old_ = false;   // preparing_, than a rejection
    std::deque<Preparing> preparing_;
    std::optional<Computing> computing_;
    std::vector<Settling> settling_;

    std::deque<Batch> batches_;
    std::set<BatchRange> held_;          // leased, not yet reported finished; each of one batch
    std::vector<BatchRange> finished_;   // likewise, to report
    std::optional<LeaseRequest> lease_;  // outstanding
    TaskSet own_tasks_;                  // under worker.split_tasks: those placed on this worker
    TaskSet last_tasks_;                 // of the gradient begun last
    Time lease_sent_{};
    Time lease_first_sent_{};
    Time lease_heard_{};  // the lead shard, of this request
    Time looked_overdue_{};
    std::uint32_t lease_number_ = 0;
    bool lease_useless_ = false;  // the last answer brought nothing: ask when something has changed
    bool no_more_ = false;

    std::vector<Saving> savings_;
    std::optional<Time> last_word_;  // since when it waits for what is being saved, to leave

    Ticket initial_ticket_;
    std::vector<std::vector<WeightBlock>> initial_;  // by client

    // Figures for the status.
    std::uint64_t steps_computed_ = 0;
    std::uint64_t steps_resolved_ = 0;  // of those: not the ones that were skipped
    std::uint64_t samples_ = 0;
    std::uint64_t altered_ = 0;
    std::uint64_t not_finite_ = 0;
    std::uint64_t rejected_steps_ = 0;
    std::uint64_t recomputed_steps_ = 0;
    std::uint64_t compensated_steps_ = 0;
    std::uint64_t restarted_steps_ = 0;
    std::uint64_t skipped_steps_ = 0;  // NaN or Inf
    PullSpread pull_spread_;
    std::vector<bool> shares_;  // which pairs of tasks have a cosine (partition/layers.h)
    double cosine_sum_ = 0;     // of each step's mean over those pairs
    std::uint64_t cosine_count_ = 0;
    std::vector<double> pair_cosine_sums_;    // T×T, row-major
    std::vector<std::uint64_t> cosine_bins_;  // as Status has them
    std::uint64_t conflict_steps_ = 0;        // with a pair below zero
    std::uint64_t reused_steps_ = 0;
    std::uint64_t undecided_steps_ = 0;  // at which the method's status was not ok
    InterferenceIndex interference_;
    bool state_too_large_ = false;  // said once
    // Of each task over the steps that cosines are counted of: ‖g‖, and what it was given.
    std::vector<double> norm_sums_;
    std::vector<double> weight_sums_;  // empty: a method without weights
    std::vector<double> losses_;
    std::vector<std::uint64_t> loss_steps_;  // behind each
    Nanos compute_time_{0};
    Nanos wait_time_{0};
    Nanos round_time_{0};  // from its own gradient to the node's
    std::uint64_t groups_lost_ = 0;
    std::optional<Time> waiting_since_;
    StepTime step_time_;

    Time now_{};
    Effects* effects_ = nullptr;
};

}  // namespace detente
