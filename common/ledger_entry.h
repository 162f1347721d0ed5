// What the ledger records: enough to replay the run. One entry per pull, per part's verdicts, per
// lease and per control change; written by the node that decided, in its order.
//
// A replay goes through a shard's verdicts in order. Recorded: the versions a step was computed at
// (pull, base), its batch and samples, the rate and scale of each apply, a hash of its gradients.
// Not recorded, because a function of these and the job: the samples of a batch (seed, data epoch,
// first), dropout (seed, batch), the weights of the tasks (aggregator over the Gramian of the
// gradients that the hash names; its state is the worker's, step after step), the clip factor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"

namespace detente {

struct PullRecord {
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    // Versions handed out, one per block of `blocks`.
    std::vector<BlockId> blocks;
    Epoch epoch;
    std::vector<Version> versions;
};
struct VerdictRecord {
    struct Row {
        BlockId block;
        TaskSet tasks;
        Version base;
        Version version;  // after
        std::uint64_t staleness = 0;
        float step_scale = 1;
        // The block's rate by its schedule, where applied; 0 elsewhere.
        double scheduled_rate = 0;
        Verdict verdict = Verdict::applied;
        ErrorCode reason = ErrorCode::internal;

        // What the rule was handed, to the bit.
        double learning_rate() const { return scheduled_rate * static_cast<double>(step_scale); }
    };
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    Part part;
    Epoch epoch;
    BatchRange batch;
    std::uint32_t samples = 0;
    std::uint64_t gradient_hash = 0;  // as the worker made it; 0 = not made
    // Step scope: the lead's decision, {0, 0} in block scope. Pushes that one decision brought to
    // the same version were folded, in the order of their records: Σ weight·g / denominator.
    Sequence decision;
    float gradient_weight = 1;
    double denominator = 1;
    // Step scope: when the part came; it was decided later. Block scope: the entry's own time.
    Time arrived;
    std::vector<Row> rows;
};
// Updates of one part that were acknowledged, and that a restore took back.
struct LostRecord {
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    Part part;
    Epoch epoch;  // in which they had been applied
    std::vector<BlockId> blocks;
    std::vector<Version> versions;  // each block's after the update
    std::string reason;
};
// A step closed without a push: cancelled or lost, `blocks` of this shard.
struct ClosedRecord {
    WorkerId worker;
    Incarnation incarnation;
    Step step;
    std::uint32_t blocks = 0;
    bool lost = false;
    std::string reason;
};
// A worker's own: what its tasks' gradients were to each other in a step, and what the conflict
// method made of them. Numbers are rounded to float.
struct ResolvedRecord {
    WorkerId worker;  // of the ledger's own incarnation
    Step step;
    BatchRange batch;           // count = 1
    std::vector<float> losses;  // one per task
    // Gramians over what tasks share, each its upper triangle, row by row: of every layer, in the
    // order of shared_layers() (common/partition/layers.h), or one of all of it
    // (ledger.conflicts).
    std::vector<std::vector<float>> gramians;
    // One list per group of conflict.scope, one weight per task, NaN: the task has no part in the
    // group; empty: coordinate by coordinate.
    std::vector<std::vector<float>> weights;
    // Where Gramians and weights do not say what came of it (averages, coordinates, groups that
    // were not recorded): as CombineOutcome has it, a product per task, then ‖r‖². Else empty.
    std::vector<float> result;
    bool reused = false;  // weights of an earlier step (conflict.every)
};
// What the numbers of a worker's ResolvedRecords stand for; before the first of them.
struct NamesRecord {
    std::string method;
    std::vector<std::string> tasks;
    std::vector<std::string> layers;  // shared ones, in order
};
// A worker's own, where its node keeps layers in step: what it brought to a round of averages. The
// mean is over these, in the order of the workers' numbers (common/collective/average.h), so that
// with the records of all members it can be made again.
struct ShareRecord {
    WorkerId worker;  // of the ledger's own incarnation
    Step step;
    GroupEpoch group;
    Step round;                       // of the group
    BatchRange batch;                 // count = 1
    std::uint32_t samples = 0;        // its weight
    TaskSet tasks;                    // whose rows it brought; not all: it was cancelled meanwhile
    std::uint64_t gradient_hash = 0;  // of its own gradients; 0 = not made
    // Versions it was computed at. Its push names others: a node's oldest.
    std::vector<BlockId> blocks;
    std::vector<Version> versions;
};
// Likewise: the round's averages came, and its gradients went on with them.
struct AveragedRecord {
    WorkerId worker;
    Step step;
    GroupEpoch group;
    Step round;
    std::uint32_t samples = 0;  // behind the averages
};
struct LeaseRecord {
    WorkerId worker;
    Incarnation incarnation;
    bool granted = true;  // false: given back
    BatchRange range;
};
struct ControlRecord {
    std::string what;  // "started", "stop: …", "worker:1 lost: …", and these, which a replay reads:
};
ControlRecord checkpoint_made(std::uint64_t number);
std::optional<std::uint64_t> checkpoint_of(const ControlRecord& record);
// The vectors that a policy kept of the worker are gone from here on.
ControlRecord worker_forgotten(WorkerId worker);
std::optional<WorkerId> forgotten_worker(const ControlRecord& record);
ControlRecord policy_changed(const std::string& how);
bool changes_policy(const ControlRecord& record);

struct LedgerEntry {
    Time at;
    std::variant<PullRecord, VerdictRecord, ClosedRecord, LeaseRecord, ControlRecord, LostRecord,
                 ResolvedRecord, NamesRecord, ShareRecord, AveragedRecord>
        record;
};

}  // namespace detente
