// Goes through a run's ledgers and does everything again: gradients are computed from the versions
// that were pulled, judged as was recorded, and applied by the same code a shard runs
// (ps/block_store.h). The weights come out bit for bit, or the first gradient whose hash differs is
// named.
//
// Where a node kept layers in step, its members' gradients of a round are computed together and
// averaged as they were.
//
// Shards are gone through in the order of their entries' times, as far as what an entry needs is
// there already; so clocks of several hosts need not agree.
//
// With `gaps`, at every verdict also what only a replay and a simulator can see: how far the
// weights have moved since the gradient's were pulled, ‖w − w_stale‖, and the cosine between this
// gradient and one of the same batch at the weights of now.
//
// Thread: one. In memory: the ledger, and each version of a block until the last gradient computed
// at it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/partition/plan.h"
#include "common/result.h"
#include "launch/replay/recording.h"
#include "ps/block_store.h"
#include "worker/engine_computer.h"
#include "worker/engine_pool.h"
#include "worker/in_step_rows.h"
#include "worker/resolver.h"

namespace detente {

// Gradients of one staleness (the largest among their blocks').
struct StalenessGap {
    std::uint64_t gradients = 0;
    double gap_sum = 0;     // of ‖w − w_stale‖, over all trainable blocks
    double cosine_sum = 0;  // of the resolved gradients
};

struct ReplayFigures {
    std::uint64_t entries = 0;
    std::uint64_t gradients = 0;                 // computed again
    std::uint64_t carried = 0;                   // of those, rejected ones that were compensated
    std::uint64_t rounds = 0;                    // of averages of nodes' layers in step, made again
    std::uint64_t hashes = 0;                    // of those, compared with what the worker recorded
    std::uint64_t applied = 0;                   // (step, block)
    std::uint64_t others = 0;                    // rejected, cancelled, lost
    std::map<std::uint64_t, StalenessGap> gaps;  // by staleness
};

struct ReplayOptions {
    bool gaps = false;
    std::set<std::uint64_t> checkpoints;  // whose weights are kept, to be compared
    // Called now and then with the entries gone through; false: stop (cancelled).
    std::function<bool(std::uint64_t)> pause_point;
};

class Replay {
  public:
    // bad_job; bad_model: the engines are not of the recorded job. `recording` outlives the replay.
    static Result<std::unique_ptr<Replay>> create(const Recording& recording, const Plan& plan,
                                                  std::shared_ptr<EnginePool> engines,
                                                  ReplayOptions options);

    // Once. internal: something comes out otherwise than recorded, and what first; bad_message: the
    // ledgers do not fit together, as when one is cut off.
    Result<ReplayFigures> run();

    // After run(): of the weights, as a simulation's (launch/weights_digest.h) …
    std::uint64_t digest();
    // … and the newest of the checkpoints asked for that all shards made; none: there is none.
    std::optional<std::uint64_t> checkpoint() const;
    const std::map<BlockId, Payload>& checkpoint_weights() const;

  private:
    using Blocks = std::map<BlockId, Payload>;
    struct Gradient {
        Blocks blocks;
        std::size_t rows_left = 0;
    };
    // Pushes that one decision folded into one update of a block.
    struct Average {
        Sequence decision;
        Version version;
        double denominator = 1;
        float step_scale = 1;
        double scheduled_rate = 0;
        std::uint32_t samples = 0;
        std::vector<BlockStore::Part> parts;
        std::vector<Payload> owners;
    };
    struct Worker {
        std::unique_ptr<EngineComputer> computer;
        std::optional<Resolver> resolver;
        Step computed;  // all its recorded steps up to here
        // With `gaps`: computes at weights the worker never had.
        std::unique_ptr<EngineComputer> beside;
    };
    struct Place {
        std::size_t next = 0;
        std::map<BlockId, Average> open;
    };
    enum class Went { on, not_yet };

    Replay(const Recording& recording, const Plan& plan, std::shared_ptr<EnginePool> engines,
           ReplayOptions options);
    Result<void> begin();
    Result<void> begin_anew();
    Result<void> begin_with_checkpoint(const std::string& directory);
    // bad_message: what no run of this job and model can have recorded.
    Result<void> check_recording() const;
    bool sound_share(const RecordedStep& step) const;
    void count_uses();
    Result<Went> go_on(std::size_t shard);
    Result<void> take(std::size_t shard, const PullRecord& pull);
    Result<Went> take(std::size_t shard, Time at, const VerdictRecord& push);
    Result<void> take(std::size_t shard, const ControlRecord& control);
    Result<void> apply_alone(std::size_t shard, Time at, const VerdictRecord& push,
                             const VerdictRecord::Row& row, const Payload& gradient);
    Result<void> fold(std::size_t shard, const VerdictRecord& push, const VerdictRecord::Row& row,
                      const Payload& gradient);
    // Applies the averages that are open.
    Result<void> close(std::size_t shard);
    Result<void> apply(std::size_t shard, BlockId block, const Average& average);
    void updated(LiveBlock& block);
    void let_go(const std::pair<BlockId, Version>& version);

    std::optional<BlockId> missing(const StepKey& key, const RecordedStep& step) const;
    // What keeps a step from being computed: a version that is not there yet, of it or of one that
    // comes before it, at its worker or by way of its node's averages.
    using Lacking = std::pair<StepKey, BlockId>;
    std::optional<Lacking> lacking(const StepKey& key, const RecordedStep& step) const;
    std::optional<Lacking> lacking(const StepKey& key, const RecordedStep& step,
                                   std::set<RoundKey>& seen) const;
    Result<void> compute(const StepKey& key, const RecordedStep& step);
    // Those of the worker that come before it.
    Result<void> compute_before(Worker& worker, const StepKey& key);
    // The weights it was computed at; what is kept for it only is let go.
    std::vector<WeightBlock> weights_of(const StepKey& key, const RecordedStep& step);
    void keep_gradient(const StepKey& key, const RecordedStep& step, Blocks&& gradient);
    Result<Blocks> resolved(EngineComputer& computer, Resolver& resolver, const StepKey& key,
                            const RecordedStep& step, std::vector<WeightBlock> weights,
                            bool compare);
    GradientWork work_of(const Resolver& resolver, const StepKey& key, const RecordedStep& step,
                         std::vector<WeightBlock> weights) const;
    Result<void> compare_hash(const StepKey& key, const RecordedStep& step,
                              const GradientOutcome& outcome);
    Result<Blocks> combined(EngineComputer& computer, Resolver& resolver, const StepKey& key,
                            const RecordedStep& step, GradientOutcome&& outcome);

    // Rounds of averages (replay_rounds.cpp).
    struct Share {
        StepKey key;
        const RecordedStep* step = nullptr;
        Worker* worker = nullptr;
        GradientWork work;
        std::optional<GradientOutcome> outcome;
        std::map<TaskId, Payload> rows;
    };
    // All that a round's members computed, in step.
    Result<void> compute_round(const RoundKey& key);
    Result<Share> share_of(const StepKey& key);
    Result<std::vector<Payload>> averages_of(const RoundKey& key, const std::vector<Share>& shares);
    Result<void> go_on_with(Share&& share, const std::vector<Payload>& averages);
    // Those that no push waits for.
    Result<void> compute_last_rounds();

    // As the worker's compensation: the other step's gradient, at these weights.
    Result<Blocks> carried(EngineComputer& computer, const RecordedStep& step,
                           const std::vector<WeightBlock>& weights);
    // So many rows of the step's gradient are done with.
    void used(const StepKey& key, std::size_t rows);
    Result<void> measure_gap(EngineComputer& computer, Resolver resolver, const StepKey& key,
                             const RecordedStep& step, const std::vector<WeightBlock>& stale,
                             const Blocks& gradient);
    Result<Worker*> worker_of(const StepKey& key);
    // What its conflict method went on from.
    Result<void> remember(const StepKey& key, Resolver& resolver) const;
    LiveBlock& live(BlockId block);
    Error stuck() const;

    const Recording& recording_;
    std::shared_ptr<const Job> job_;
    std::shared_ptr<const Plan> plan_;
    std::shared_ptr<EnginePool> engines_;
    ReplayOptions options_;
    std::shared_ptr<SampleOrders> orders_;
    Epoch epoch_{1};
    std::optional<Resolver> first_;  // as each worker begins, but for what it remembers
    std::set<WorkerId> begun_;       // whose first incarnation has begun
    std::vector<BlockId> trainable_;
    InStepRows in_step_;
    std::vector<BlockStore> stores_;
    std::vector<Place> places_;
    // Gradients that will be computed at a version, and its bytes while there are any.
    std::map<std::pair<BlockId, Version>, std::uint32_t> uses_;
    std::map<std::pair<BlockId, Version>, Payload> kept_;
    // Of policies that hand out other weights than the stored ones.
    std::map<StepKey, std::map<BlockId, Payload>> handed_;
    std::map<std::pair<WorkerId, Incarnation>, Worker> workers_;
    std::map<StepKey, Gradient> gradients_;
    std::map<StepKey, std::size_t> carried_rows_;  // of its gradient, to be carried yet
    std::map<std::uint64_t, std::map<BlockId, Payload>> checkpoints_;
    ReplayFigures figures_;
    std::atomic<bool> never_{false};
};

}  // namespace detente
