#include "launch/summary.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <iterator>

#include "launch/books_json.h"
#include "launch/pairs_json.h"
#include "launch/progress.h"

namespace detente {

namespace json = boost::json;

namespace {
std::vector<WorkerSummary> workers_of(const ClusterView& view) {
    std::vector<WorkerSummary> workers;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::worker) continue;
        const auto value = [&process](const char* name) { return process.value(name).value_or(0); };
        workers.push_back({process.node.index, static_cast<std::uint64_t>(value("steps")),
                           static_cast<std::uint64_t>(value("samples")), value("compute_ms") / 1e3,
                           value("wait_ms") / 1e3, step_times_of(process)});
    }
    return workers;
}

json::object conflict_of(const Summary& summary) {
    json::object conflict;
    if (summary.mean_cosine) conflict["mean_cosine"] = *summary.mean_cosine;
    if (!summary.cosines.empty()) {
        json::array rows;
        for (const auto& row : summary.cosines) {
            json::array numbers;
            for (const double cosine : row) numbers.push_back(number(cosine));
            rows.emplace_back(std::move(numbers));
        }
        conflict["tasks"] = json::array(summary.tasks.begin(), summary.tasks.end());
        conflict["cosines"] = std::move(rows);
    }
    if (summary.conflict_share) conflict["steps_in_conflict"] = *summary.conflict_share;
    if (summary.interference_index) conflict["interference_index"] = *summary.interference_index;
    conflict["degenerate_steps"] = summary.degenerate_steps;
    if (!summary.pairs.empty()) conflict["pairs"] = json_of(summary.pairs);
    if (!summary.layers.empty()) conflict["layers"] = json_of(summary.layers);
    if (!summary.layers_error.empty()) conflict["layers_error"] = summary.layers_error;
    if (!summary.by_task.empty()) conflict["by_task"] = json_of(summary.by_task);
    return conflict;
}

double per_step(const TornPulls& torn, std::uint64_t count) {
    return static_cast<double>(count) / static_cast<double>(torn.told);
}

// Share and mean only where it can be told: 0 would be a promise.
json::object json_of(const TornPulls& torn) {
    json::object pulls{{"told_steps", torn.told}, {"torn_steps", torn.steps}};
    if (torn.told > 0) {
        pulls["torn_share"] = per_step(torn, torn.steps);
        pulls["torn_mean"] = per_step(torn, torn.sum);
    }
    pulls["torn_max"] = torn.largest;
    return pulls;
}

json::array workers_json(const std::vector<WorkerSummary>& workers) {
    json::array rows;
    for (const WorkerSummary& worker : workers) {
        rows.push_back(json::object{{"worker", worker.worker},
                                    {"steps", worker.steps},
                                    {"samples", worker.samples},
                                    {"computing_s", worker.computing_s},
                                    {"waiting_s", worker.waiting_s},
                                    {"step_time", json_of(worker.step_times)}});
    }
    return rows;
}
}  // namespace

Summary summary_of(const ClusterView& view, const Outcome& outcome, const RunDirectory& run) {
    Summary summary;
    summary.job = view.job;
    summary.run_dir = run.path;
    summary.failed = outcome.failed;
    summary.error = outcome.error;
    for (const CheckpointView& checkpoint : view.checkpoints) {
        if (checkpoint.accuracy.empty()) continue;
        summary.accuracy = checkpoint.accuracy;
        summary.loss = checkpoint.loss;
    }
    summary.books = total_books(view);
    summary.staleness = summarise(view);
    summary.staleness_histogram = total_staleness(view);
    summary.mean_cosine = mean_cosine(view);
    summary.tasks = view.tasks;
    summary.metrics = view.metrics;
    summary.cosines = pairwise_cosines(view);
    summary.pairs = pair_summaries(view);
    auto layers = read_layer_pairs(run);
    if (layers.has_error()) {
        summary.layers_error = layers.error().text;
    } else {
        summary.layers = std::move(*layers);
    }
    summary.by_task = task_summaries(view);
    summary.conflict_share = conflict_share(view);
    summary.interference_index = interference_index(view);
    summary.degenerate_steps = degenerate_steps(view);
    summary.workers = workers_of(view);
    summary.step_times = total_step_times(view);
    summary.torn = torn_pulls(view);
    summary.in_step = in_step(view);
    summary.across = across_workers(view);
    summary.refused = refused_messages(view);
    summary.steps = total_steps(view);
    summary.samples = total_samples(view);
    summary.resumed_from = view.resumed_from;
    summary.samples_before = view.samples_before;
    summary.updates_taken_back = total_taken_back(view);
    summary.wall_s = as_seconds(view.now);
    if (view.training_began) {
        summary.training_s =
            as_seconds(view.training_ended.value_or(view.now) - *view.training_began);
        if (summary.training_s > 0) {
            summary.samples_per_s =
                static_cast<double>(summary.samples - summary.samples_before) / summary.training_s;
        }
    }
    summary.batches_done = batches_done(view);
    if (const ProcessView* lead = view.find(node_of(kLeadShard))) {
        summary.batches_leased_again =
            static_cast<std::uint64_t>(lead->value("batches.returned").value_or(0));
    }
    if (!view.checkpoints.empty()) summary.last_checkpoint = view.checkpoints.back().directory;
    summary.best_checkpoint = view.best;
    summary.processes_lost = view.failures.size();
    return summary;
}

std::string to_json(const Summary& summary) {
    json::object tasks;
    for (const auto& [task, accuracy] : summary.accuracy) {
        tasks[task] = json::object{{"accuracy", accuracy}, {"metric", metric_of(summary, task)}};
    }
    for (const auto& [task, loss] : summary.loss) {
        // JSON has no NaN.
        if (std::isfinite(loss)) tasks[task].as_object()["loss"] = loss;
    }
    json::object refused;
    for (const auto& [reason, messages] : summary.refused) refused[reason] = messages;
    json::array histogram(summary.staleness_histogram.begin(), summary.staleness_histogram.end());
    json::object object{{"job", summary.job},
                        {"failed", summary.failed},
                        {"tasks", std::move(tasks)},
                        {"updates", json_of(summary.books)},
                        {"staleness", json::object{{"mean", summary.staleness.mean},
                                                   {"p50", summary.staleness.p50},
                                                   {"p99", summary.staleness.p99},
                                                   {"max", summary.staleness.max},
                                                   {"histogram", std::move(histogram)}}},
                        {"pulls", json_of(summary.torn)},
                        {"conflict", conflict_of(summary)},
                        {"workers", workers_json(summary.workers)},
                        {"step_time", json_of(summary.step_times)},
                        {"refused", std::move(refused)},
                        {"steps", summary.steps},
                        {"samples", summary.samples},
                        {"wall_s", summary.wall_s},
                        {"training_s", summary.training_s},
                        {"samples_per_s", summary.samples_per_s},
                        {"batches", json::object{{"done", summary.batches_done},
                                                 {"leased_again", summary.batches_leased_again}}},
                        {"processes_lost", summary.processes_lost},
                        {"last_checkpoint", summary.last_checkpoint}};
    if (!summary.resumed_from.empty()) {
        object["resumed"] = json::object{{"checkpoint", summary.resumed_from},
                                         {"samples", summary.samples_before},
                                         {"updates_taken_back", summary.updates_taken_back}};
    }
    if (summary.simulated) {
        // 64 bits do not fit a JSON number of every reader.
        object["digest"] = fmt::format("{:016x}", summary.simulated->digest);
        object["events"] = summary.simulated->events;
        object["virtual_s"] = summary.simulated->virtual_s;
    }
    if (summary.in_step) {
        object["sync"] = json::object{{"member_rounds", summary.in_step->member_rounds},
                                      {"groups_lost", summary.in_step->groups_lost},
                                      {"wait_ms", summary.in_step->wait_ms}};
    }
    if (summary.across) {
        object["across"] = json::object{{"arrived", summary.across->arrived},
                                        {"projected", summary.across->projected},
                                        {"cosine_mean", summary.across->mean_cosine},
                                        {"pairs", json_of(summary.across->pairs)}};
    }
    if (summary.best_checkpoint) object["best_checkpoint"] = *summary.best_checkpoint;
    if (summary.failed) {
        object["error"] =
            json::object{{"code", name_of(summary.error.code)}, {"text", summary.error.text}};
    }
    return json::serialize(object) + "\n";
}

Result<void> write_summary(const Summary& summary, const RunDirectory& run) {
    const auto written = write_text(run.summary_file(), to_json(summary));
    if (!written.has_error()) return {};
    return fail(
        written.error().code,
        fmt::format("{}; the run's figures are only in what is printed here, its model in "
                    "{}, its course in {}",
                    written.error().text,
                    summary.last_checkpoint.empty() ? "no checkpoint" : summary.last_checkpoint,
                    run.series_file()));
}

namespace {

std::string bars(const std::vector<std::uint64_t>& histogram, std::uint64_t count) {
    constexpr std::size_t kMostRows = 10;
    constexpr std::size_t kWidth = 32;
    std::string text;
    std::size_t last = 0;
    for (std::size_t bin = 0; bin < histogram.size(); ++bin) {
        if (histogram[bin] != 0) last = bin;
    }
    const std::size_t rows = std::min(last + 1, kMostRows);
    const auto out = std::back_inserter(text);
    for (std::size_t row = 0; row < rows; ++row) {
        const bool rest = row + 1 == rows && last >= rows;
        std::uint64_t here = 0;
        for (std::size_t bin = row; bin <= (rest ? last : row); ++bin) here += histogram[bin];
        const double share = static_cast<double>(here) / static_cast<double>(count);
        std::string bar;
        const auto length = static_cast<std::size_t>(std::lround(share * kWidth));
        for (std::size_t i = 0; i < length; ++i) bar += "█";
        if (bar.empty() && here > 0) bar = "▏";
        for (std::size_t i = std::max<std::size_t>(length, here > 0 ? 1 : 0); i < kWidth; ++i) {
            bar += ' ';
        }
        fmt::format_to(out, "    {:>4} {} {:5.1f} %\n",
                       rest ? fmt::format("{}+", row) : std::to_string(row), bar, 100 * share);
    }
    return text;
}

// What became of steps that were not solved, and of layers in step.
void add_steps(const Summary& summary, std::back_insert_iterator<std::string> out) {
    if (summary.degenerate_steps > 0) {
        fmt::format_to(out,
                       "  conflict.method found no solution of its own (zero or degenerate "
                       "gradients) in {} steps; a worker's log has the first\n",
                       with_commas(summary.degenerate_steps));
    }
    if (summary.in_step && summary.in_step->member_rounds == 0) {
        fmt::format_to(out,
                       "  in step: never; no worker averaged with its node, which was lost {} "
                       "times\n",
                       with_commas(summary.in_step->groups_lost));
    } else if (summary.in_step) {
        fmt::format_to(out,
                       "  in step: {} averages of a worker with its node, {:.2f} ms of waiting "
                       "each; its node was lost {} times\n",
                       with_commas(summary.in_step->member_rounds), summary.in_step->wait_ms,
                       with_commas(summary.in_step->groups_lost));
    }
}

}  // namespace

std::string metric_of(const Summary& summary, const std::string& task) {
    for (std::size_t i = 0; i < summary.metrics.size() && i < summary.tasks.size(); ++i) {
        if (summary.tasks[i] == task) return summary.metrics[i];
    }
    return "accuracy";
}

std::string table(const Summary& summary) {
    std::string text;
    const auto out = std::back_inserter(text);
    const bool accuracies =
        std::all_of(summary.metrics.begin(), summary.metrics.end(),
                    [](const std::string& metric) { return metric == "accuracy"; });
    if (!summary.accuracy.empty()) {
        fmt::format_to(out, "  {}\n", accuracies ? "test accuracy" : "test scores");
    }
    for (const auto& [task, accuracy] : summary.accuracy) {
        const std::string metric = metric_of(summary, task);
        fmt::format_to(out, "    {:<20} {:6.2f} %{}\n", task, 100 * accuracy,
                       accuracies ? "" : "  " + metric);
    }
    const Books& books = summary.books;
    fmt::format_to(out, "  updates (of one block)\n");
    const std::pair<const char*, std::uint64_t> rows[] = {
        {"computed", books.computed},   {"applied", books.applied}, {"rejected", books.rejected},
        {"cancelled", books.cancelled}, {"lost", books.lost},       {"in flight", books.in_flight}};
    for (const auto& [name, count] : rows) {
        fmt::format_to(out, "    {:<12} {:>14}\n", name, with_commas(count));
    }
    if (!summary.resumed_from.empty()) {
        fmt::format_to(out, "    of the lost, applied after {} was made: {}\n",
                       summary.resumed_from, with_commas(summary.updates_taken_back));
    }
    if (summary.staleness.count > 0) {
        fmt::format_to(out, "  staleness: mean {:.2f}, p50 {}, p99 {}, max {}\n",
                       summary.staleness.mean, summary.staleness.p50, summary.staleness.p99,
                       summary.staleness.max);
        text += bars(summary.staleness_histogram, summary.staleness.count);
    }
    if (summary.torn.steps > 0) {
        fmt::format_to(out,
                       "  torn pulls: {} of {} steps at weights up to {} versions apart, mean over "
                       "all {:.2f}\n",
                       with_commas(summary.torn.steps), with_commas(summary.torn.told),
                       summary.torn.largest, per_step(summary.torn, summary.torn.sum));
    }
    if (summary.mean_cosine) {
        fmt::format_to(out,
                       "  mean pairwise cosine of task gradients: {:+.3f}; in conflict in "
                       "{:.1f} % of the steps\n",
                       *summary.mean_cosine, 100 * summary.conflict_share.value_or(0));
    }
    add_steps(summary, out);
    if (summary.across) {
        const double share = summary.across->arrived == 0
                                 ? 0
                                 : static_cast<double>(summary.across->projected) /
                                       static_cast<double>(summary.across->arrived);
        fmt::format_to(out,
                       "  across workers: {} gradients of shared blocks, {:.1f} % of them "
                       "projected; mean cosine with the other tasks' averages {:+.3f}\n",
                       with_commas(summary.across->arrived), 100 * share,
                       summary.across->mean_cosine);
    }
    const std::uint64_t samples = summary.samples - summary.samples_before;
    fmt::format_to(out, "  {} steps, {} samples in {:.1f} s of training: {} samples/s\n",
                   with_commas(summary.steps), with_commas(samples), summary.training_s,
                   with_commas(static_cast<std::uint64_t>(summary.samples_per_s)));
    if (summary.step_times.steps > 0) {
        fmt::format_to(out, "  {}\n", text_of(summary.step_times));
    }
    if (!summary.resumed_from.empty()) {
        fmt::format_to(out, "  with the {} before the resume: {} samples\n",
                       with_commas(summary.samples_before), with_commas(summary.samples));
    }
    if (summary.processes_lost > 0) {
        fmt::format_to(out, "  processes lost: {}; who and why: {}\n", summary.processes_lost,
                       RunDirectory{summary.run_dir}.log_file("coordinator"));
    }
    if (summary.simulated) {
        fmt::format_to(out, "  simulated: {} events, {:.1f} s in {:.1f} s; digest {:016x}\n",
                       with_commas(summary.simulated->events), summary.simulated->virtual_s,
                       summary.wall_s, summary.simulated->digest);
    }
    fmt::format_to(out, "  run directory: {}\n", summary.run_dir);
    return text;
}

namespace {

void describe_end(std::string& text, const EndedProcess& process, bool with_last_words) {
    const auto out = std::back_inserter(text);
    fmt::format_to(out, "  ended:      {}\n", process.end.text());
    if (!with_last_words || process.last_lines.empty()) return;
    fmt::format_to(out, "  last words:\n");
    const std::size_t shown = std::min<std::size_t>(process.last_lines.size(), 5);
    for (std::size_t i = process.last_lines.size() - shown; i < process.last_lines.size(); ++i) {
        fmt::format_to(out, "    {}\n", process.last_lines[i]);
    }
}

}  // namespace

std::string failure_report(const ClusterView& view, const Outcome& outcome,
                           const std::vector<EndedProcess>& ended, const RunDirectory& run) {
    // A launcher that ends a job because of a lost rank does it by a signal: who was lost is said
    // too.
    const bool interrupted = outcome.error.code == ErrorCode::cancelled;
    std::string text =
        fmt::format("{}: {}\n", interrupted ? "INTERRUPTED" : "FAILED", outcome.error.text);
    const auto out = std::back_inserter(text);
    const Failure* first = view.first_failure();
    if (first == nullptr) return text;
    const auto process_of = [&](NodeId node) -> const EndedProcess* {
        for (const EndedProcess& process : ended) {
            if (process.label == view.label_of(node)) return &process;
        }
        return nullptr;
    };
    fmt::format_to(out, "  first:      {} ({}) on {} (pid {})\n", to_string(first->node),
                   view.label_of(first->node), first->host.empty() ? "this host" : first->host,
                   first->process);
    const EndedProcess* process = process_of(first->node);
    // Of a process that was killed, its end is all there is to say: once is enough.
    const bool end_says_it = process != nullptr && process->end.text() == first->text;
    if (!end_says_it) fmt::format_to(out, "  error:      {}\n", first->text);
    if (process != nullptr) describe_end(text, *process, !first->told_by_itself);
    const ProcessView* seen = view.find(first->node);
    if (first->step > 0) {
        fmt::format_to(out, "  last step:  {}\n", first->step);
    } else if (seen != nullptr && !seen->last.activity.empty()) {  // shards do not count steps
        fmt::format_to(out, "  last seen:  {}\n", seen->last.activity);
    }
    fmt::format_to(out, "  log:        {}\n", run.log_file(view.label_of(first->node)));
    bool any = false;
    for (const Failure& failure : view.failures) {
        if (&failure == first) continue;
        if (!any) fmt::format_to(out, "  fell with it:\n");
        any = true;
        fmt::format_to(out, "    {}: {}\n", to_string(failure.node), failure.text);
    }
    return text;
}

}  // namespace detente
