// How a run's tasks got on with each other over time and layer by layer, and which weights they
// were given: means of what its workers recorded, few enough numbers to draw.
//
// Thread: pure reading.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/result.h"
#include "launch/conflict_ledger.h"
#include "launch/run_directory.h"

namespace detente {

struct ConflictHistory {
    using Series = std::vector<std::pair<double, double>>;  // seconds, value
    std::vector<std::string> pairs;             // "left / right", the most opposed first
    std::vector<Series> over_time;              // mean cosine, one series per pair
    std::vector<std::string> layers;            // empty: not recorded by layer
    std::vector<std::vector<double>> by_layer;  // mean cosine, [layer][pair]
    std::vector<std::string> tasks;
    std::vector<Series> norms;      // mean length of each task's gradient, where it is shared
    Series in_conflict;             // share of the steps with a pair below zero
    std::vector<Series> weights;    // mean over steps and the task's groups, per task; empty: none
    std::size_t weight_groups = 0;  // of conflict.scope, each with weights of its own
    std::string method;
    Weighs weighs = Weighs::gradients;  // what they multiply

    bool empty() const { return pairs.empty(); }
};

// Empty where nothing was recorded (ledger.conflicts = "off", one task). io, bad_message: a ledger
// that is not readable.
Result<ConflictHistory> read_conflict_history(const RunDirectory& run);

}  // namespace detente
