// The runs of a sweep, read for a report: cells with the same settings are one group, whatever
// their seeds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/report/run_record.h"
#include "launch/report/svg.h"
#include "launch/report/timeline.h"
#include "launch/sweep/sweep_record.h"

namespace detente {

struct SweepGroup {
    std::string title;
    std::vector<SweepCell> cells;
    std::vector<RunRecord> runs;       // of the cells that are done
    std::optional<Timeline> timeline;  // of the first run
};

struct SweepRuns {
    std::string directory;
    SweepRecord record;
    std::vector<SweepGroup> groups;
    std::vector<std::string> remarks;
    std::optional<double> reach;  // accuracy, mean of tasks: also when a run first scored it

    // Timelines are read of so many groups; they are the largest files by far.
    static constexpr std::size_t kMostTimelines = 8;
};

// A cell whose run cannot be read is a remark; a sweep.json that cannot be read is an error.
Result<SweepRuns> read_sweep_runs(const std::string& directory);

// What the page and the screen show: a row per group, means over the seeds with the lowest and the
// highest in brackets.
struct SweepTable {
    std::vector<std::string> header;
    std::vector<std::vector<std::string>> rows;
};
SweepTable table_of(const SweepRuns& sweep);
// On the run's clock, of the first evaluation that scored it; NaN = none did.
double seconds_to_reach(const RunRecord& run, double accuracy);

// Mean over its runs at the same places, with the lowest and highest; `of` gives a run's points.
struct MeanCurve {
    std::vector<Point> mean;
    std::vector<Point> low;
    std::vector<Point> high;
};
MeanCurve mean_curve(const std::vector<std::vector<Point>>& runs);

}  // namespace detente
