// What a run's workers recorded of conflicts (ResolvedRecord), read back: for `detente explain`,
// reports and `detente plan --masks`. The workers' ledgers say all of it; no model is needed.
//
// Thread: pure reading; files are opened only here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/ids.h"
#include "common/ledger_entry.h"
#include "common/result.h"
#include "launch/run_directory.h"

namespace detente {

// One step of one worker.
struct ResolvedStep {
    WorkerId worker;
    Incarnation incarnation{1};
    Step step;
    BatchRange batch;
    Time at;
    std::vector<float> losses;
    std::vector<Gramian> gramians;  // of every layer, or one of all
    // One list for all, or one per group of conflict.scope; NaN: the task has no part in the group.
    std::vector<std::vector<float>> weights;
    std::vector<float> result;  // as ResolvedRecord has it; empty: the weights say it, or nothing
    bool reused = false;

    Gramian whole() const;  // the sum
};

// Whether the tasks have a cosine there: where they share nothing their product is exactly zero.
bool have_met(const Gramian& gramian, std::size_t a, std::size_t b);
// Cosines of the pairs (0, 1), (0, 2), …, (1, 2), …; NaN where the two have none there.
std::vector<double> pair_cosines(const Gramian& gramian);

// What a method's weights multiply: the step's gradients; averages of them that it keeps, and that
// no ledger has (AggregatorNeeds::averages); or nothing, where it decides coordinate by coordinate.
// A method that this build does not know is taken to weigh gradients.
enum class Weighs { gradients, averages, nothing };
Weighs weighs(const std::string& method);

// Reads every step of every worker, each worker's in order. `visit` is told the names first with
// each; a worker's names may differ from another's only if the run directory holds two runs.
// io, bad_message: no ledgers, or one that is not readable; not_supported: nothing was recorded
// (ledger.conflicts = "off", one task, or tasks split over workers: what the saved job says).
using VisitStep = std::function<void(const NamesRecord& names, const ResolvedStep& step)>;
Result<void> read_resolved_steps(const RunDirectory& run, const VisitStep& visit);

}  // namespace detente
