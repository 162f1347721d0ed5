// What is left of a run when it is over: summary.json, the table, and, if it failed, the report
// that tells the first failure first.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/runtime/contracts.h"
#include "launch/cluster_view.h"
#include "launch/coordinator_loop.h"
#include "launch/layer_pairs.h"
#include "launch/run_directory.h"
#include "launch/step_times.h"

namespace detente {

struct WorkerSummary {
    std::uint32_t worker = 0;
    std::uint64_t steps = 0;
    std::uint64_t samples = 0;
    double computing_s = 0;
    double waiting_s = 0;  // for replies: with weights, a verdict or a batch to come
    StepTimes step_times{};
};

struct Summary {
    std::string job;
    std::string run_dir;
    bool failed = false;
    Error error;                                           // where failed
    std::vector<std::pair<std::string, double>> accuracy;  // of the last evaluated checkpoint
    std::vector<std::pair<std::string, double>> loss;      // of the same, on the test set
    Books books;
    StalenessSummary staleness;
    std::vector<std::uint64_t> staleness_histogram;
    std::optional<double> mean_cosine;
    std::vector<std::string> tasks;
    std::vector<std::string> metrics;          // what each scores; empty = accuracy
    std::vector<std::vector<double>> cosines;  // mean of each pair, in the order of `tasks`
    std::vector<PairSummary> pairs;
    std::vector<LayerPairs> layers;  // the same by layer; empty: not recorded
    std::string layers_error;        // why they could not be read; empty = they could
    std::vector<TaskSummary> by_task;
    std::optional<double> conflict_share;      // of the steps: some pair below zero
    std::optional<double> interference_index;  // of what is shared
    std::uint64_t degenerate_steps = 0;        // the method's status was not ok
    std::vector<WorkerSummary> workers;
    StepTimes step_times;  // of all workers
    // Steps computed at weights of several moments, and by how many versions they differed.
    TornPulls torn;
    std::optional<InStepSummary> in_step;
    std::optional<AcrossSummary> across;
    std::map<std::string, std::uint64_t> refused;  // messages, by reason; empty = none
    std::uint64_t steps = 0;
    std::uint64_t samples = 0;             // those before a resume included
    std::string resumed_from;              // directory of a checkpoint; empty = none
    std::uint64_t samples_before = 0;      // applied in that
    std::uint64_t updates_taken_back = 0;  // applied after it, and lost
    double wall_s = 0;                     // of the whole run
    double training_s = 0;                 // between Go and the last worker's end
    double samples_per_s = 0;
    double batches_done = 0;
    std::uint64_t batches_leased_again = 0;
    std::string last_checkpoint;  // directory; empty = none
    std::optional<std::uint64_t> best_checkpoint;
    std::size_t processes_lost = 0;
    // Of a simulated run. training_s and samples_per_s are of virtual time, wall_s is not.
    struct Simulated {
        std::uint64_t digest = 0;  // over all final blocks and versions
        std::uint64_t events = 0;
        double virtual_s = 0;
    };
    std::optional<Simulated> simulated;
};

// Pairs by layer are read from the run's ledger; summary.json says so if that is not readable.
Summary summary_of(const ClusterView& view, const Outcome& outcome, const RunDirectory& run);
// The keys of summary.json; counts are numbers.
std::string to_json(const Summary& summary);
// Writes RUN/summary.json; io, saying what there is instead.
Result<void> write_summary(const Summary& summary, const RunDirectory& run);
// What a task scores under the name `accuracy`: that, unless its model says otherwise.
std::string metric_of(const Summary& summary, const std::string& task);
// For people, at the end of a run: accuracies, updates, staleness as bars, cosine, where it lies.
std::string table(const Summary& summary);

// Role and rank, host, how it ended, its own words, last step, log; what fell with it apart.
std::string failure_report(const ClusterView& view, const Outcome& outcome,
                           const std::vector<EndedProcess>& ended, const RunDirectory& run);

}  // namespace detente
