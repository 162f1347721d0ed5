#include "launch/report/sweep_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/report/page_parts.h"
#include "launch/run_directory.h"

namespace detente {
namespace {

constexpr std::size_t kPlaces = 100;  // at which runs are averaged

// By straight lines between the points; NaN outside them, and beside a gap.
double value_at(const std::vector<Point>& points, double x) {
    const auto right = std::lower_bound(points.begin(), points.end(), x,
                                        [](const Point& p, double at) { return p.x < at; });
    if (right == points.end()) return std::numeric_limits<double>::quiet_NaN();
    if (right->x == x) return right->y;
    if (right == points.begin()) return std::numeric_limits<double>::quiet_NaN();
    const Point& left = *(right - 1);
    return left.y + (right->y - left.y) * (x - left.x) / (right->x - left.x);
}

// "76.65 (76.10–77.20)"; the mean alone where all are the same.
std::string spread(const std::vector<double>& values, double factor) {
    double sum = 0;
    double low = HUGE_VAL;
    double high = -HUGE_VAL;
    std::size_t count = 0;
    for (const double value : values) {
        if (!std::isfinite(value)) continue;
        sum += value * factor;
        low = std::min(low, value * factor);
        high = std::max(high, value * factor);
        ++count;
    }
    if (count == 0) return "–";
    const std::string mean = fmt::format("{:.2f}", sum / static_cast<double>(count));
    const std::string range = fmt::format("{:.2f}–{:.2f}", low, high);
    return range == mean + "–" + mean ? mean : mean + " (" + range + ")";
}

template <class Figure>
std::vector<double> over_runs(const SweepGroup& group, Figure figure) {
    std::vector<double> values;
    for (const RunRecord& run : group.runs) values.push_back(figure(run));
    return values;
}

double accuracy_of(const RunRecord& run, const std::string& task) {
    for (const auto& [name, accuracy] : run.accuracy) {
        if (name == task) return accuracy;
    }
    return std::nan("");
}

std::string time_to_reach(const SweepGroup& group, double accuracy) {
    const std::vector<double> times =
        over_runs(group, [&](const RunRecord& run) { return seconds_to_reach(run, accuracy); });
    const auto never =
        std::count_if(times.begin(), times.end(), [](double time) { return !std::isfinite(time); });
    return spread(times, 1) +
           (never > 0 ? fmt::format(", {} of {} never", never, times.size()) : "");
}

std::vector<std::string> all_tasks(const SweepRuns& sweep) {
    std::vector<std::string> tasks;
    for (const SweepGroup& group : sweep.groups) {
        for (const RunRecord& run : group.runs) {
            for (const auto& [task, accuracy] : run.accuracy) {
                if (std::find(tasks.begin(), tasks.end(), task) == tasks.end()) {
                    tasks.push_back(task);
                }
            }
        }
    }
    return tasks;
}

}  // namespace

Result<SweepRuns> read_sweep_runs(const std::string& directory) {
    auto record = read_sweep(directory);
    if (record.has_error()) return record.error();
    SweepRuns sweep;
    sweep.directory = directory;
    std::size_t timelines = 0;
    for (const SweepCell& cell : record->cells) {
        if (sweep.groups.empty() || sweep.groups.back().cells.front().settings != cell.settings) {
            sweep.groups.push_back({title_of(cell), {}, {}, std::nullopt});
        }
        SweepGroup& group = sweep.groups.back();
        group.cells.push_back(cell);
        if (cell.state != CellState::done) continue;
        auto run = read_run(cell_dir(directory, cell));
        if (run.has_error()) {
            sweep.remarks.push_back(fmt::format("{} is left out: {}", cell.name, run.error().text));
            continue;
        }
        group.runs.push_back(std::move(*run));
        if (group.timeline || timelines == SweepRuns::kMostTimelines) continue;
        auto timeline = read_timeline(RunDirectory{cell_dir(directory, cell)}.ledger_dir());
        if (timeline.has_error()) {
            sweep.remarks.push_back(
                fmt::format("{} has no timeline: {}", cell.name, timeline.error().text));
            continue;
        }
        group.timeline = std::move(*timeline);
        ++timelines;
    }
    sweep.record = std::move(*record);
    return sweep;
}

SweepTable table_of(const SweepRuns& sweep) {
    const std::vector<std::string> tasks = all_tasks(sweep);
    SweepTable table{{"settings", "runs"}, {}};
    for (const std::string& task : tasks) table.header.push_back(task + ", %");
    for (const char* more : {"staleness", "applied, %", "training, s"}) {
        table.header.emplace_back(more);
    }
    if (sweep.reach) {
        table.header.push_back(fmt::format("s to {:g} %", 100 * *sweep.reach));
    }
    for (const SweepGroup& group : sweep.groups) {
        std::vector<std::string> row = {
            group.title, fmt::format("{} of {}", group.runs.size(), group.cells.size())};
        const auto add = [&](double factor, const auto& figure) {
            row.push_back(spread(over_runs(group, figure), factor));
        };
        for (const std::string& task : tasks) {
            add(100, [&](const RunRecord& run) { return accuracy_of(run, task); });
        }
        add(1, [](const RunRecord& run) { return run.staleness.mean; });
        add(100, [](const RunRecord& run) { return share_applied(run.books); });
        add(1, [](const RunRecord& run) { return run.training_s; });
        if (sweep.reach) row.push_back(time_to_reach(group, *sweep.reach));
        table.rows.push_back(std::move(row));
    }
    return table;
}

double seconds_to_reach(const RunRecord& run, double accuracy) {
    for (const SeriesScore& score : run.scores) {
        if (score.accuracy.empty()) continue;
        double sum = 0;
        for (const auto& [task, value] : score.accuracy) sum += value;
        if (sum / static_cast<double>(score.accuracy.size()) >= accuracy) return score.seconds;
    }
    return std::nan("");
}

MeanCurve mean_curve(const std::vector<std::vector<Point>>& runs) {
    double first = std::numeric_limits<double>::infinity();
    double last = -std::numeric_limits<double>::infinity();
    for (const auto& points : runs) {
        if (points.empty()) continue;
        first = std::min(first, points.front().x);
        last = std::max(last, points.back().x);
    }
    MeanCurve curve;
    if (!(first <= last)) return curve;
    for (std::size_t i = 0; i < kPlaces; ++i) {
        const double x =
            first + (last - first) * static_cast<double>(i) / static_cast<double>(kPlaces - 1);
        double sum = 0;
        double low = std::numeric_limits<double>::infinity();
        double high = -low;
        std::size_t count = 0;
        for (const auto& points : runs) {
            const double y = value_at(points, x);
            if (!std::isfinite(y)) continue;
            sum += y;
            low = std::min(low, y);
            high = std::max(high, y);
            ++count;
        }
        // A mean over fewer runs would jump where the shortest ends.
        if (count < runs.size()) continue;
        curve.mean.push_back({x, sum / static_cast<double>(count)});
        curve.low.push_back({x, low});
        curve.high.push_back({x, high});
    }
    return curve;
}

}  // namespace detente
