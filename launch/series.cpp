#include "launch/series.h"

#include <fcntl.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <chrono>
#include <span>

#include "launch/books_json.h"
#include "launch/pairs_json.h"
#include "launch/run_directory.h"
#include "launch/step_times.h"

namespace detente {
namespace {

namespace json = boost::json;

double seconds(Time at) { return std::chrono::duration<double>(at.time_since_epoch()).count(); }

std::size_t count_of(const ClusterView& view, Role role, bool only_live) {
    std::size_t count = 0;
    for (const ProcessView& process : view.processes) {
        if (process.node.role == role && (!only_live || process.live())) ++count;
    }
    return count;
}

std::string header_of(const ClusterView& view, bool virtual_time) {
    json::array tasks(view.tasks.begin(), view.tasks.end());
    json::object header{{"series", 1},
                        {"job", view.job},
                        {"tasks", std::move(tasks)},
                        {"virtual", virtual_time},
                        {"workers", count_of(view, Role::worker, false)},
                        {"shards", count_of(view, Role::shard, false)},
                        {"samples_planned", view.samples_planned}};
    return json::serialize(header) + "\n";
}

// Whole microseconds: a tenth of the text that doubles would take.
json::array step_times_json(const ClusterView& view) {
    json::array rows;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::worker) continue;
        if (rows.size() == SeriesWriter::kMostWorkers) break;
        const StepTimes times = step_times_of(process);
        json::array row{times.steps};
        for (const long double ms : times.ms) {
            row.emplace_back(static_cast<std::uint64_t>(std::llround(std::max(ms, 0.0L) * 1e3L)));
        }
        rows.emplace_back(std::move(row));
    }
    return rows;
}

std::string point_of(const ClusterView& view) {
    const StalenessSummary staleness = summarise(view);
    json::array losses;
    for (const double loss : mean_losses(view)) losses.push_back(number(loss));
    return json::serialize(json::object{{"seconds", seconds(view.now)},
                                        {"stage", name_of(view.stage)},
                                        {"steps", total_steps(view)},
                                        {"samples", total_samples(view)},
                                        {"workers_up", count_of(view, Role::worker, true)},
                                        {"updates", json_of(total_books(view))},
                                        {"loss", std::move(losses)},
                                        {"staleness", json::object{{"mean", staleness.mean},
                                                                   {"p50", staleness.p50},
                                                                   {"p99", staleness.p99},
                                                                   {"max", staleness.max}}},
                                        {"step_time_us", step_times_json(view)}}) +
           "\n";
}

std::string score_of(const ClusterView& view, const CheckpointView& checkpoint) {
    json::object accuracy;
    for (const auto& [task, score] : checkpoint.accuracy) accuracy[task] = number(score);
    return json::serialize(json::object{{"seconds", seconds(view.now)},
                                        {"samples", checkpoint.samples},
                                        {"checkpoint", checkpoint.number},
                                        {"accuracy", std::move(accuracy)}}) +
           "\n";
}

OpenFile open_at_end(const std::string& path, int more) {
    return OpenFile(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | more, 0644));
}

}  // namespace

Result<SeriesWriter> SeriesWriter::create(const std::string& path, SeriesOptions options) {
    OpenFile file = open_at_end(path, O_CREAT | O_TRUNC);
    if (file.get() < 0) return io_error("write", path, errno);
    return SeriesWriter(path, options, std::move(file));
}

Result<void> SeriesWriter::note(const ClusterView& view) {
    if (failed_) return {};
    if (auto scored = add_scores(view); scored.has_error()) return scored;
    // Before training there is nothing to see, and after it nothing moves.
    const bool moves = view.training_began && view.stage <= Stage::saving;
    if (!moves || view.now < next_) return {};
    return add_point(view);
}

Result<void> SeriesWriter::finish(const ClusterView& view) {
    if (failed_) return {};
    if (auto scored = add_scores(view); scored.has_error()) return scored;
    return view.training_began ? add_point(view) : Result<void>();
}

Result<void> SeriesWriter::add_point(const ClusterView& view) {
    if (header_.empty()) {
        header_ = header_of(view, options_.virtual_time);
        if (auto begun = append(header_); begun.has_error()) return begun;
    }
    if (points_.size() == kMostLines) options_.interval *= 2;
    next_ = view.now + options_.interval;
    return add(points_, point_of(view));
}

Result<void> SeriesWriter::add_scores(const ClusterView& view) {
    for (std::size_t i = scored_; i < view.checkpoints.size(); ++i) {
        if (view.checkpoints[i].accuracy.empty()) continue;
        scored_ = i + 1;
        if (auto added = add(scores_, score_of(view, view.checkpoints[i])); added.has_error()) {
            return added;
        }
    }
    return {};
}

Result<void> SeriesWriter::add(std::vector<std::string>& lines, std::string line) {
    const bool full = lines.size() == kMostLines;
    if (full) {
        for (std::size_t i = 1; 2 * i < lines.size(); ++i) lines[i] = std::move(lines[2 * i]);
        lines.resize((lines.size() + 1) / 2);
    }
    lines.push_back(std::move(line));
    return full ? write_anew() : append(lines.back());
}

Result<void> SeriesWriter::append(const std::string& text) {
    auto written = write_whole(file_, std::as_bytes(std::span(text)), path_);
    failed_ = written.has_error();
    return written;
}

Result<void> SeriesWriter::write_anew() {
    std::string text = header_;
    for (const std::string& line : points_) text += line;
    for (const std::string& line : scores_) text += line;
    auto written = write_text(path_, text);
    failed_ = written.has_error();
    if (failed_) return written;
    file_ = open_at_end(path_, 0);
    failed_ = file_.get() < 0;
    return failed_ ? Result<void>(io_error("write", path_, errno)) : Result<void>();
}

}  // namespace detente
