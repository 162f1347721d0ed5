// Executes a worker's Work over an engine: loads blocks into the model, has one gradient per task
// computed, forms the Gramian over shared blocks (or, in representation space, at the trunk's
// output) and combines straight into push parts.
//
// Thread: the compute thread; one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/partition/plan.h"
#include "common/runtime/contracts.h"
#include "worker/conflict_rows.h"
#include "worker/engine.h"
#include "worker/gate_rows.h"
#include "worker/held_gradients.h"
#include "worker/in_step_rows.h"
#include "worker/sample_orders.h"
#include "worker/worker_halves.h"

namespace detente {

class EngineComputer : public Computer {
  public:
    using PartSink = std::function<void(std::uint32_t, Payload)>;

    // `hashes`: put a hash of all task gradients into every GradientOutcome (for the ledger and
    // replays).
    EngineComputer(std::unique_ptr<Engine> engine, std::shared_ptr<const Plan> plan,
                   std::uint64_t seed, bool hashes = false);
    // The same, sharing the orders of samples with other computers of this process.
    EngineComputer(std::unique_ptr<Engine> engine, std::shared_ptr<const Plan> plan,
                   std::shared_ptr<SampleOrders> orders, bool hashes);

    WorkResult run(const Work& work, const std::atomic<bool>& cancelled,
                   const PartSink& part) override;

    // Staleness methods with a half in the worker and what learns the model's gates, as the job and
    // the model ask for them. A model with gates must not compute without.
    Result<void> use_methods_of(const Job& job);

    // What a checkpoint's file of this worker has (worker/kept_vectors.h), before the first work.
    // The text says what of it is not used and why; empty: it goes on from all of it. Errors as
    // read_kept(). Requires: use_methods_of().
    Result<std::string> restore_vectors(const std::string& path);

    Engine& engine() { return *engine_; }

  private:
    WorkResult run_initial(const PartSink& part);
    WorkResult run_gradient(const GradientWork& work, const std::atomic<bool>& cancelled,
                            const PartSink& part);
    WorkResult run_measure(const MeasureWork& work);
    WorkResult run_combine(const CombineWork& work, const PartSink& part);
    WorkResult run_kept(const PartSink& part) const;
    static WorkResult run_compensate(const CompensateWork& work, const PartSink& part);
    std::vector<std::uint32_t> samples_of(const BatchRange& batch, std::uint32_t batch_samples);
    Result<void> load_weights(const GradientWork& work);
    // The batch's gradients, or those of its two halves.
    Result<std::shared_ptr<HeldGradients>> gradients_of(const GradientWork& work,
                                                        const std::atomic<bool>& cancelled,
                                                        const PartSink& part,
                                                        GradientOutcome& outcome);
    // Learns gates, and fills in what a method is given.
    void measure(const GradientWork& work, std::shared_ptr<HeldGradients> held,
                 GradientOutcome& outcome);
    // In representation space: one backward, for the rows as they are weighed.
    Result<std::shared_ptr<const TrunkGradient>> through_trunk(const CombineWork& work,
                                                               const HeldGradients& held);
    std::uint64_t hash_of(const HeldGradients& gradients) const;

    std::unique_ptr<Engine> engine_;
    std::shared_ptr<const Plan> plan_;
    std::unique_ptr<WorkerHalves> halves_;
    std::unique_ptr<GateRows> gates_;
    std::string method_;  // of conflict
    bool hashes_;
    std::size_t tasks_;
    ConflictRows rows_;
    InStepRows in_step_;
    std::shared_ptr<SampleOrders> orders_;
};

}  // namespace detente
