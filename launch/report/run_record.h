// What a run left behind, read for a report: its summary, its series, its job. Nothing in it is
// trusted: a file may be missing, cut off, or not ours.
//
// Thread: pure reading; files are opened only here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/books.h"
#include "common/result.h"
#include "launch/layer_pairs.h"
#include "launch/summary.h"

namespace detente {

struct SeriesPoint {
    double seconds = 0;
    std::uint64_t steps = 0;
    std::uint64_t samples = 0;
    Books books;
    std::vector<double> losses;  // per task; NaN = none
    double staleness_mean = 0;
    std::vector<StepTimes> step_times{};  // so far, of worker 0, 1, …
};

struct SeriesScore {
    double seconds = 0;
    std::uint64_t samples = 0;
    std::uint64_t checkpoint = 0;
    std::vector<std::pair<std::string, double>> accuracy;
};

struct GapPoint {  // means over the gradients of one staleness
    std::uint64_t staleness = 0;
    std::uint64_t gradients = 0;
    double gap = 0;  // ‖w − w_stale‖
    double cosine = 0;
};

struct RunRecord {
    std::string directory;
    std::string job;
    bool virtual_time = false;
    bool ended = false;  // there is a summary
    bool failed = false;
    std::string error;  // where failed
    std::vector<std::string> tasks;
    std::vector<std::pair<std::string, double>> accuracy;
    Books books;
    StalenessSummary staleness;
    std::vector<std::uint64_t> staleness_histogram;  // of applied updates; the last bin is open
    std::optional<double> mean_cosine;
    std::vector<PairSummary> pairs;
    std::vector<LayerPairs> layers;  // the same by layer; empty: of an older build, or not recorded
    std::string layers_error;        // why they could not be read; empty = they could
    std::vector<TaskSummary> by_task;  // empty: of an older build, or no cosines
    std::optional<double> interference_index;
    std::optional<double> steps_in_conflict;  // share
    // Older builds did not say.
    std::optional<std::uint64_t> degenerate_steps;
    std::vector<std::string> cosine_tasks;
    std::vector<std::vector<double>> cosines;  // square, or empty; NaN: nothing is shared
    std::vector<AcrossSummary::Pair> across;   // what servers saw where tasks are split
    std::vector<WorkerSummary> workers;
    StepTimes step_times;  // of all workers; without steps: of an older build
    std::uint64_t steps = 0;
    std::uint64_t samples = 0;
    double wall_s = 0;
    double training_s = 0;
    double samples_per_s = 0;
    std::vector<SeriesPoint> points;  // in order of time
    std::vector<SeriesScore> scores;
    std::vector<GapPoint> gaps;  // by staleness; empty = not measured
    std::string job_text;        // resolved, TOML; empty = not there
    // What could not be read and is left out, a sentence each.
    std::vector<std::string> remarks;
};

// A run that has not ended, or was killed, has what its series says. io: no run directory, or a
// file of it that is there but not readable as what it should be; the text names file and member.
Result<RunRecord> read_run(const std::string& directory);

}  // namespace detente
