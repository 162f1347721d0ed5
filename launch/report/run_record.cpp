#include "launch/report/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "common/file.h"
#include "launch/run_directory.h"
#include "launch/series.h"
#include "launch/strict_reading.h"

namespace detente {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::size_t kMostSummaryBytes = 16U << 20U;
constexpr std::size_t kMostSeriesBytes = 256U << 20U;
constexpr std::size_t kMostJobBytes = 4U << 20U;
constexpr std::size_t kMostBins = 65536;

Error not_ours(const std::string& file, const std::string& why) {
    return fail(
        ErrorCode::bad_message,
        fmt::format("{}: {}; expected what `detente run` or `detente simulate` wrote", file, why));
}

// over_limit would be a fault of ours: a file that is too large is not what we wrote.
Result<std::string> text_of(const std::string& file, std::uint64_t most_bytes) {
    std::error_code ignored;
    if (!fs::is_regular_file(file, ignored))
        return not_ours(file, "it is no file");  // a pipe hangs
    auto text = read_text(file, most_bytes);
    if (text.has_error() && text.error().code == ErrorCode::over_limit) {
        return not_ours(file, "it is larger than " + std::to_string(most_bytes) + " bytes");
    }
    return text;
}

Books books_at(const json::object& object, std::string_view key) {
    const json::object& updates = object_at(object, key);
    Books books;
    books.computed = count_at(updates, "computed");
    books.applied = count_at(updates, "applied");
    books.rejected = count_at(updates, "rejected");
    books.cancelled = count_at(updates, "cancelled");
    books.lost = count_at(updates, "lost");
    books.in_flight = count_at(updates, "in_flight");
    return books;
}

std::vector<PairSummary> pairs_in(const json::object& pairs) {
    std::vector<PairSummary> read;
    for (const auto& first : pairs) {
        const json::object& others = object_at(pairs, first.key());
        for (const auto& second : others) {
            const json::object& pair = object_at(others, second.key());
            read.push_back({first.key(), second.key(), number_at(pair, "mean"),
                            number_at(pair, "p10"), number_at(pair, "p90"),
                            number_at(pair, "negative_share")});
        }
    }
    return read;
}

void read_conflict(const json::object& conflict, RunRecord& run) {
    if (conflict.contains("mean_cosine")) run.mean_cosine = number_at(conflict, "mean_cosine");
    if (conflict.contains("interference_index")) {
        run.interference_index = number_at(conflict, "interference_index");
    }
    if (conflict.contains("pairs")) run.pairs = pairs_in(object_at(conflict, "pairs"));
    if (conflict.contains("layers")) {
        const json::object& layers = object_at(conflict, "layers");
        for (const auto& layer : layers) {
            run.layers.push_back(
                {std::string(layer.key()), pairs_in(object_at(layers, layer.key()))});
        }
    }
    if (conflict.contains("layers_error")) {
        run.layers_error = text_at(conflict, "layers_error");
    }
    if (conflict.contains("by_task")) {
        const json::object& tasks = object_at(conflict, "by_task");
        for (const auto& task : tasks) {
            const json::object& own = object_at(tasks, task.key());
            TaskSummary& summary = run.by_task.emplace_back();
            summary.task = std::string(task.key());
            summary.norm_mean = number_at(own, "norm_mean");
            if (own.contains("weight_mean")) summary.weight_mean = number_at(own, "weight_mean");
        }
    }
    if (conflict.contains("steps_in_conflict")) {
        run.steps_in_conflict = number_at(conflict, "steps_in_conflict");
    }
    if (conflict.contains("degenerate_steps")) {
        run.degenerate_steps = count_at(conflict, "degenerate_steps");
    }
    if (!conflict.contains("cosines")) return;
    run.cosine_tasks = texts_at(conflict, "tasks");
    for (const json::value& row : array_at(conflict, "cosines")) {
        if (!row.is_array() || row.as_array().size() != run.cosine_tasks.size()) {
            throw BadMember{"'cosines' must have a row and a column for each of 'tasks'"};
        }
        std::vector<double>& numbers = run.cosines.emplace_back();
        for (const json::value& entry : row.as_array()) {
            numbers.push_back(number_of(entry, "cosines"));
        }
    }
    if (run.cosines.size() != run.cosine_tasks.size()) {
        throw BadMember{"'cosines' must have a row and a column for each of 'tasks'"};
    }
}

// Older builds did not say.
void read_across(const json::object& summary, RunRecord& run) {
    if (!summary.contains("across")) return;
    const json::object& across = object_at(summary, "across");
    if (!across.contains("pairs")) return;
    const json::object& pairs = object_at(across, "pairs");
    for (const auto& first : pairs) {
        const json::object& others = object_at(pairs, first.key());
        for (const auto& second : others) {
            const json::object& pair = object_at(others, second.key());
            run.across.push_back({std::string(first.key()), std::string(second.key()),
                                  number_at(pair, "mean"), number_at(pair, "negative_share")});
        }
    }
}

void read_staleness(const json::object& staleness, RunRecord& run) {
    run.staleness.mean = number_at(staleness, "mean");
    run.staleness.p50 = count_at(staleness, "p50");
    run.staleness.p99 = count_at(staleness, "p99");
    run.staleness.max = count_at(staleness, "max");
    const json::array& bins = array_at(staleness, "histogram");
    if (bins.size() > kMostBins) throw BadMember{"'histogram' has more bins than any run"};
    for (const json::value& bin : bins) {
        run.staleness_histogram.push_back(count_of(bin, "histogram"));
        run.staleness.count += run.staleness_histogram.back();
    }
}

// Older builds did not say.
StepTimes step_times_in(const json::object& object) {
    if (!object.contains("step_time")) return {};
    return step_times_from(object_at(object, "step_time"));
}

void read_summary(std::string_view text, RunRecord& run) {
    const json::object summary = object_from(text);
    run.job = text_at(summary, "job");
    run.failed = flag_at(summary, "failed");
    if (run.failed) run.error = text_at(object_at(summary, "error"), "text");
    for (const auto& [task, scores] : object_at(summary, "tasks")) {
        if (!scores.is_object()) throw BadMember{"'tasks' must hold an object per task"};
        run.accuracy.emplace_back(std::string(task), number_at(scores.as_object(), "accuracy"));
    }
    run.books = books_at(summary, "updates");
    read_staleness(object_at(summary, "staleness"), run);
    read_conflict(object_at(summary, "conflict"), run);
    read_across(summary, run);
    run.steps = count_at(summary, "steps");
    run.samples = count_at(summary, "samples");
    run.wall_s = number_at(summary, "wall_s");
    run.training_s = number_at(summary, "training_s");
    run.samples_per_s = number_at(summary, "samples_per_s");
    if (summary.contains("virtual_s")) run.virtual_time = true;
    run.step_times = step_times_in(summary);
    if (!summary.contains("workers")) return;  // of an older build
    for (const json::value& entry : array_at(summary, "workers")) {
        if (!entry.is_object()) throw BadMember{"'workers' must hold an object per worker"};
        const json::object& worker = entry.as_object();
        run.workers.push_back({static_cast<std::uint32_t>(count_at(worker, "worker")),
                               count_at(worker, "steps"), count_at(worker, "samples"),
                               number_at(worker, "computing_s"), number_at(worker, "waiting_s"),
                               step_times_in(worker)});
    }
}

void read_header(const json::object& header, RunRecord& run) {
    if (count_at(header, "series") != 1) throw BadMember{"'series' must be 1, another layout"};
    run.job = text_at(header, "job");
    run.tasks = texts_at(header, "tasks");
    run.virtual_time = flag_at(header, "virtual");
}

void read_step_times(const json::object& line, SeriesPoint& point) {
    if (!line.contains("step_time_us")) return;  // of an older build
    const json::array& rows = array_at(line, "step_time_us");
    if (rows.size() > SeriesWriter::kMostWorkers) {
        throw BadMember{"'step_time_us' has more workers than a series ever has"};
    }
    for (const json::value& row : rows) {
        if (!row.is_array() || row.as_array().size() != 1 + kStepTimeParts) {
            throw BadMember{"'step_time_us' must hold the steps and five sums per worker"};
        }
        const json::array& numbers = row.as_array();
        StepTimes& times = point.step_times.emplace_back();
        times.steps = count_of(numbers[0], "step_time_us");
        for (std::size_t part = 0; part < kStepTimeParts; ++part) {
            times.ms[part] = static_cast<double>(count_of(numbers[1 + part], "step_time_us")) / 1e3;
        }
    }
}

void read_line(const json::object& line, RunRecord& run) {
    if (line.contains("series")) return read_header(line, run);
    if (line.contains("accuracy")) {
        SeriesScore score{number_at(line, "seconds"),
                          count_at(line, "samples"),
                          count_at(line, "checkpoint"),
                          {}};
        for (const auto& [task, value] : object_at(line, "accuracy")) {
            score.accuracy.emplace_back(std::string(task), number_of(value, "accuracy"));
        }
        run.scores.push_back(std::move(score));
        return;
    }
    SeriesPoint point;
    point.seconds = number_at(line, "seconds");
    if (!std::isfinite(point.seconds)) throw BadMember{"'seconds' must be a number"};
    point.steps = count_at(line, "steps");
    point.samples = count_at(line, "samples");
    point.books = books_at(line, "updates");
    for (const json::value& loss : array_at(line, "loss")) {
        point.losses.push_back(number_of(loss, "loss"));
    }
    if (!point.losses.empty() && point.losses.size() != run.tasks.size()) {
        throw BadMember{"'loss' must have a number for each of the header's tasks"};
    }
    // No worker has computed yet: nothing to draw, but the place in time.
    point.losses.resize(run.tasks.size(), std::numeric_limits<double>::quiet_NaN());
    point.staleness_mean = number_at(object_at(line, "staleness"), "mean");
    read_step_times(line, point);
    run.points.push_back(std::move(point));
}

Result<void> read_series(const std::string& file, const std::string& text, RunRecord& run) {
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = text.find('\n', begin);
        ++number;
        if (end == std::string::npos) {
            run.remarks.push_back(fmt::format(
                "The last line of {} is cut off, as a crash or a full disk leaves it.", file));
            break;
        }
        try {
            const json::object line =
                object_from(std::string_view(text).substr(begin, end - begin));
            if ((number == 1) != line.contains("series")) {
                throw BadMember{"the first line, and only that, must be the header"};
            }
            read_line(line, run);
        } catch (const BadMember& bad) {
            return not_ours(fmt::format("{}:{}", file, number), bad.text);
        }
        begin = end + 1;
    }
    if (run.points.size() > 2 * SeriesWriter::kMostLines) {
        return not_ours(
            file, fmt::format("{} points are more than a series ever has", run.points.size()));
    }
    std::stable_sort(run.points.begin(), run.points.end(),
                     [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
    return {};
}

Result<void> read_gaps(const std::string& file, RunRecord& run) {
    const auto text = text_of(file, kMostSummaryBytes);
    if (text.has_error()) return text.error();
    try {
        const json::object whole = object_from(*text);
        for (const json::value& entry : array_at(whole, "gaps")) {
            if (!entry.is_object()) throw BadMember{"'gaps' must hold an object per staleness"};
            const json::object& row = entry.as_object();
            run.gaps.push_back({count_at(row, "staleness"), count_at(row, "gradients"),
                                number_at(row, "gap"), number_at(row, "cosine")});
        }
    } catch (const BadMember& bad) {
        return not_ours(file, bad.text);
    }
    return {};
}

}  // namespace

Result<RunRecord> read_run(const std::string& directory) {
    RunRecord run;
    run.directory = directory;
    const RunDirectory at{directory};
    std::error_code ignored;
    const bool has_summary = fs::exists(at.summary_file(), ignored);
    const bool has_series = fs::exists(at.series_file(), ignored);
    if (!has_summary && !has_series) {
        return fail(ErrorCode::io,
                    fmt::format("{}: neither summary.json nor series.jsonl is here; expected a run "
                                "directory (like runs/latest) or the folder of a sweep",
                                directory));
    }
    if (has_series) {
        const auto text = text_of(at.series_file(), kMostSeriesBytes);
        if (text.has_error()) return text.error();
        if (auto read = read_series(at.series_file(), *text, run); read.has_error()) {
            return read.error();
        }
    } else {
        run.remarks.push_back("There is no series.jsonl: no curves over time.");
    }
    if (has_summary) {
        const auto text = text_of(at.summary_file(), kMostSummaryBytes);
        if (text.has_error()) return text.error();
        try {
            read_summary(*text, run);
        } catch (const BadMember& bad) {
            return not_ours(at.summary_file(), bad.text);
        }
        run.ended = true;
    } else {
        run.remarks.push_back(
            "There is no summary.json: the run goes on, or its launcher was killed. What follows "
            "is from the series.");
        if (!run.points.empty()) {
            run.books = run.points.back().books;
            run.steps = run.points.back().steps;
            run.samples = run.points.back().samples;
            run.staleness.mean = run.points.back().staleness_mean;
            for (const StepTimes& one : run.points.back().step_times) run.step_times += one;
        }
    }
    if (fs::exists(at.gaps_file(), ignored)) {
        if (auto read = read_gaps(at.gaps_file(), run); read.has_error()) return read.error();
    }
    if (run.tasks.empty()) {
        for (const auto& [task, accuracy] : run.accuracy) run.tasks.push_back(task);
    }
    if (fs::exists(at.job_file(), ignored)) {
        const auto text = text_of(at.job_file(), kMostJobBytes);
        if (text.has_error()) return text.error();
        run.job_text = *text;
    }
    return run;
}

}  // namespace detente
