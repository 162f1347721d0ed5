// What the coordinator knows of a run, as plain values: what /status, /metrics, the progress line
// and the summary are made of. The coordinator's loop owns the one that lives; everybody else reads
// it between two events, on the same thread, or gets a copy.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/books.h"
#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

enum class Stage {
    gathering,   // waiting for every process to say hello
    preparing,   // models load, first weights travel
    training,    // workers compute
    draining,    // asked to stop: workers finish what is in flight
    saving,      // the last checkpoint is written and merged
    evaluating,  // the last checkpoint is scored
    stopping,    // everybody left was asked to end
    finished
};
const char* name_of(Stage stage);

enum class Phase { missing, present, preparing, ready, working, stopped, lost };
const char* name_of(Phase phase);

struct ProcessView {
    NodeId node;
    Phase phase = Phase::missing;
    Time since{};  // in this phase
    Time heard{};  // last sign of life
    Incarnation incarnation{1};
    Endpoint endpoint;
    std::uint64_t process = 0;  // pid
    bool has_weights = false;
    std::uint64_t memory_bytes = 0;  // its machine's; 0 = not told
    std::string reason;              // where lost
    Status last;

    // Said hello and has neither stopped nor been lost.
    bool live() const;
    // Of the last status; nothing = never reported.
    std::optional<double> value(const std::string& name) const;
};

// A process that was lost or stopped with an error, in the order the coordinator learnt of it.
struct Failure {
    NodeId node;
    std::string host;
    std::uint64_t process = 0;
    ErrorCode code = ErrorCode::internal;
    std::string text;
    std::uint64_t step = 0;  // last reported; 0 = none
    Time at{};
    bool told_by_itself = false;  // its own last word, not what others saw of it
    // It says that somebody else is gone: fell with another, most likely.
    bool consequence() const;
};

struct CheckpointView {
    std::uint64_t number = 0;
    std::string directory;
    std::uint64_t samples = 0;                             // finished when it was asked for
    std::vector<std::pair<std::string, double>> accuracy;  // per task; empty = not evaluated
    std::vector<std::pair<std::string, double>> loss;      // on the test set, likewise
    double mean_accuracy() const;
};

struct ClusterView {
    std::string job;
    std::vector<std::string> tasks;
    std::vector<std::string> metrics;  // what each scores; empty = accuracy
    std::uint32_t shards_per_server = 1;
    Stage stage = Stage::gathering;
    Time now{};  // of the last event
    Time stage_since{};
    std::optional<Time> training_began;
    std::optional<Time> training_ended;
    // Training samples times data epochs; times trained tasks, where those are split over workers.
    std::uint64_t samples_planned = 0;
    std::string resumed_from;            // directory of a checkpoint; empty = none
    std::uint64_t samples_before = 0;    // applied in that
    std::vector<ProcessView> processes;  // shards, then workers
    std::vector<Failure> failures;
    std::vector<Group> groups;  // of workers that average layers in step; empty without [sync]
    std::vector<CheckpointView> checkpoints;  // complete ones, oldest first
    std::optional<std::uint64_t> best;        // number of the best evaluated checkpoint

    const ProcessView* find(NodeId node) const;
    ProcessView* find(NodeId node);
    // The process a node lives in, as logs are named: "server:1", "worker:0".
    std::string label_of(NodeId node) const;
    const CheckpointView* checkpoint(std::uint64_t number) const;
    // The failure everything else followed from: the first that is no consequence.
    const Failure* first_failure() const;
};

// ---- names of values in a Status, shared with ps/ and worker/ ----
// shard:  updates.{computed,applied,rejected,cancelled,lost,in_flight,taken_back}, in blocks;
//         refused.<code>, in messages: a push with NaN in three blocks is one
//         staleness.{sum,max}, counts in bins (common/staleness/staleness_bins.h); the lead shard
//         also batches.{total,finished,leased,returned}
// worker: steps, samples, cosine.{sum,count,conflict_steps}, cosine.sum.<task>.<task>,
//         {norm,weight}.sum.<task> over as many steps as cosine.count says,
//         interference.{opposed,norms}, steps.{reused,degenerate}, compute_ms, wait_ms,
//         step_time.{steps,compute_ms,wait_ms,wire_ms,queue_ms,apply_ms} (launch/step_times.h);
//         with [sync] also sync.{rounds,groups_lost,wait_ms}
// any:    refused.transport.<code>, in messages that never reached the node: garbage, a false
// length
//         or checksum, another generation or build; added by the runtime
Books books_of(const Status& status);

// ---- sums over the processes ----
Books total_books(const ClusterView& view);
// Applied block updates by staleness: a bin per version, the last of 64 is open.
std::vector<std::uint64_t> total_staleness(const ClusterView& view);
// Gradients computed times their samples; a resumed run goes on from what its checkpoint has
// applied.
std::uint64_t total_samples(const ClusterView& view);
// Updates of one block that the restore took back.
std::uint64_t total_taken_back(const ClusterView& view);
// worker/pull_spread.h says of which steps it can be told, and from what.
struct TornPulls {
    std::uint64_t told = 0;     // steps that it can be told of …
    std::uint64_t steps = 0;    // … and those at weights of several moments
    std::uint64_t sum = 0;      // of differences of versions
    std::uint64_t largest = 0;  // difference
};
TornPulls torn_pulls(const ClusterView& view);
// Of layers in step ([sync]), over all workers; nothing without any.
struct InStepSummary {
    std::uint64_t member_rounds = 0;  // a round of three members counts three times
    std::uint64_t groups_lost = 0;    // each as often as members saw it
    double wait_ms = 0;               // of a member in a round, from its own gradient to the node's
};
std::optional<InStepSummary> in_step(const ClusterView& view);

// What servers resolved across workers ([across]), over all shared blocks; none where they do not.
struct AcrossSummary {
    std::uint64_t arrived = 0;    // gradients of one block
    std::uint64_t projected = 0;  // of those, changed
    double mean_cosine = 0;       // of an arriving gradient with another task's average
    // Of each pair of which one came while there was an average of the other.
    struct Pair {
        std::string a;
        std::string b;
        double mean = 0;
        double negative_share = 0;
    };
    std::vector<Pair> pairs{};
};
std::optional<AcrossSummary> across_workers(const ClusterView& view);
std::uint64_t total_steps(const ClusterView& view);
// Messages refused, by what stands behind "refused." in what processes report; none = no entry.
std::map<std::string, std::uint64_t> refused_messages(const ClusterView& view);
// Mean over the workers that reported losses; empty = none yet.
std::vector<double> mean_losses(const ClusterView& view);
// Of the pairs that share something.
std::optional<double> mean_cosine(const ClusterView& view);
// Mean cosine of every pair of tasks over all steps, as a symmetric matrix; NaN = they share
// nothing, empty = none yet.
std::vector<std::vector<double>> pairwise_cosines(const ClusterView& view);

// Of one pair of tasks that share something, over all steps; quantiles from the bins
// (common/conflict/cosine_bins.h).
struct PairSummary {
    std::string a;
    std::string b;
    double mean = 0;
    double p10 = 0;
    double p90 = 0;
    double negative_share = 0;
};
std::vector<PairSummary> pair_summaries(const ClusterView& view);
// Of one task over all steps, on what is shared.
struct TaskSummary {
    std::string task;
    double norm_mean = 0;               // of its gradient
    std::optional<double> weight_mean;  // over steps and groups; none: a method by coordinates
};
std::vector<TaskSummary> task_summaries(const ClusterView& view);
// Of all workers' steps, over what is shared (common/conflict/interference.h).
std::optional<double> interference_index(const ClusterView& view);
// Share of the steps in which at least one pair of tasks was in conflict.
std::optional<double> conflict_share(const ClusterView& view);

// Steps at which a worker's conflict method found no solution of its own (its status was not ok).
std::uint64_t degenerate_steps(const ClusterView& view);

struct StalenessSummary {
    double mean = 0;
    std::uint64_t p50 = 0;
    std::uint64_t p99 = 0;
    std::uint64_t max = 0;
    std::uint64_t count = 0;
};
// Of applied block updates; quantiles from 64 on are up to 1/32 too high
// (common/staleness/staleness_bins.h).
StalenessSummary summarise(const ClusterView& view);
// Share of the job's batches that are finished, in [0, 1], as the lead shard counts them.
double batches_done(const ClusterView& view);

}  // namespace detente
