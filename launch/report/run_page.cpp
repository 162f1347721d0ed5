// The page of one run.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/progress.h"
#include "launch/report/page.h"
#include "launch/report/page_parts.h"

namespace detente {
namespace {

std::string lead_of(const RunRecord& run) {
    const std::string clock = run.virtual_time ? "simulated, on virtual time" : "a real run";
    if (!run.ended) return fmt::format("{}; it has not ended, or was killed", clock);
    return fmt::format("{}; {} steps over {} samples in {:.4g} s of training{}", clock,
                       with_commas(run.steps), with_commas(run.samples), run.training_s,
                       run.failed ? "; it failed" : "");
}

void show_figures(Page& page, const RunRecord& run) {
    std::vector<std::pair<std::string, std::string>> figures;
    if (!run.accuracy.empty()) {
        figures.emplace_back(percent_text(mean_accuracy(run)), "test accuracy, mean of tasks");
    }
    figures.emplace_back(percent_text(share_applied(run.books)), "of settled updates applied");
    figures.emplace_back(fmt::format("{:.2f}", run.staleness.mean), "mean staleness, in versions");
    if (run.mean_cosine) {
        figures.emplace_back(fmt::format("{:+.3f}", *run.mean_cosine), "mean cosine of task pairs");
    }
    if (run.samples_per_s > 0) {
        figures.emplace_back(
            with_commas(static_cast<std::uint64_t>(run.samples_per_s)),
            run.virtual_time ? "samples per virtual second" : "samples per second");
    }
    page.figures(figures);
}

void show_loss(Page& page, const RunRecord& run) {
    if (run.points.empty() || run.tasks.empty()) return;
    page.heading("Loss");
    for (const Against against : {Against::seconds, Against::updates}) {
        LineChart chart{"Loss of each task",
                        axis_title(against, run.virtual_time),
                        "training loss, smoothed",
                        {}};
        for (std::size_t task = 0; task < run.tasks.size(); ++task) {
            chart.curves.push_back({run.tasks[task], loss_points(run, task, against)});
        }
        const std::string scale = against == Against::seconds
                                      ? "against the run's clock"
                                      : "against updates: how much each applied update was worth";
        page.figure(draw(chart),
                    fmt::format("Training loss of each task {}, as the workers report it: a moving "
                                "mean over their batches, mean of the workers.",
                                scale));
    }
}

void show_accuracy(Page& page, const RunRecord& run) {
    if (run.accuracy.empty()) return;
    page.heading("Test accuracy");
    std::vector<std::vector<std::string>> rows;
    for (const auto& [task, accuracy] : run.accuracy) {
        std::vector<std::string> row = {task, percent_text(accuracy)};
        double best = accuracy;
        for (const SeriesScore& score : run.scores) {
            for (const auto& [name, value] : score.accuracy) {
                if (name == task) best = std::max(best, value);
            }
        }
        row.push_back(percent_text(best));
        rows.push_back(std::move(row));
    }
    page.table({"task", "at the end", "best of the run"}, rows);
    if (run.scores.size() < 2) return;
    LineChart chart{"Test accuracy of each task",
                    axis_title(Against::seconds, run.virtual_time),
                    "share right on the test set",
                    {}};
    for (const auto& [task, accuracy] : run.accuracy) {
        Curve& curve = chart.curves.emplace_back(Curve{task, {}});
        for (const SeriesScore& score : run.scores) {
            for (const auto& [name, value] : score.accuracy) {
                if (name == task) curve.points.push_back({score.seconds, value});
            }
        }
    }
    page.figure(draw(chart), fmt::format("Accuracy on the test set of the {} checkpoints that were "
                                         "evaluated during the run.",
                                         run.scores.size()));
}

void show_staleness(Page& page, const RunRecord& run) {
    if (run.staleness.count == 0) return;
    page.heading("Staleness");
    page.figure(
        draw(Histogram{"Staleness of applied updates", "staleness: versions the block had moved on",
                       run.staleness_histogram}),
        fmt::format("How stale the applied updates were: the share of all {} block updates, by how "
                    "many versions the block had moved on since the worker read it. Mean {:.2f}, "
                    "half at most {}, 99 % at most {}, the stalest {}.",
                    with_commas(run.staleness.count), run.staleness.mean, run.staleness.p50,
                    run.staleness.p99, run.staleness.max));
}

// Few gradients of a staleness say little: they are left out, the table has all.
void show_gaps(Page& page, const RunRecord& run) {
    if (run.gaps.empty()) return;
    page.heading("What staleness did to gradients");
    constexpr std::uint64_t kFew = 5;
    LineChart gap{
        "How far the weights had moved", "staleness, in versions", "mean ‖w − w_stale‖", {}};
    LineChart cosine{"Cosine with the gradient at the present weights",
                     "staleness, in versions",
                     "mean cosine",
                     {}};
    gap.curves.push_back({"gap", {}});
    cosine.curves.push_back({"cosine", {}});
    std::vector<std::vector<std::string>> rows;
    for (const GapPoint& point : run.gaps) {
        rows.push_back({std::to_string(point.staleness), with_commas(point.gradients),
                        fmt::format("{:.4g}", point.gap), fmt::format("{:.4f}", point.cosine)});
        if (point.gradients < kFew) continue;
        const auto x = static_cast<double>(point.staleness);
        gap.curves[0].points.push_back({x, point.gap});
        cosine.curves[0].points.push_back({x, point.cosine});
    }
    page.figure(draw(gap),
                "Distance between the weights a gradient was computed at and those it "
                "was applied to, by its staleness.");
    page.figure(draw(cosine),
                "Cosine between each gradient and the one of the same batch at the "
                "weights it was applied to, by its staleness.");
    page.table({"staleness", "gradients", "gap", "cosine"}, rows);
}

void show_updates(Page& page, const RunRecord& run) {
    if (run.books.computed == 0) return;
    page.heading("What became of the updates");
    page.figure(draw(ShareBars{
                    "What became of the updates", outcome_parts(), {{"", outcomes_of(run.books)}}}),
                fmt::format("Of {} computed updates of one block {} were applied; {} were wasted: "
                            "{} rejected, {} cancelled, {} lost.",
                            with_commas(run.books.computed), with_commas(run.books.applied),
                            with_commas(run.books.rejected + run.books.cancelled + run.books.lost),
                            with_commas(run.books.rejected), with_commas(run.books.cancelled),
                            with_commas(run.books.lost)));
    if (run.books.applied + run.books.in_flight == run.books.computed) return;
    LineChart chart{"Wasted share over the run",
                    axis_title(Against::seconds, run.virtual_time),
                    "wasted, % of what is settled",
                    {{"wasted so far", {}}}};
    for (const SeriesPoint& point : run.points) {
        chart.curves[0].points.push_back({point.seconds, 100 * (1 - share_applied(point.books))});
    }
    page.figure(draw(chart),
                "The share of everything settled so far that was not applied: it "
                "rises while work is wasted.");
}

std::vector<Point> points_of(const ConflictHistory::Series& series) {
    std::vector<Point> points;
    for (const auto& [x, y] : series) points.push_back({x, y});
    return points;
}

std::string weights_caption(const ConflictHistory& history) {
    std::string caption =
        history.weighs == Weighs::averages
            ? fmt::format(
                  "What {} multiplied its moving average of each task's gradient by, "
                  "where it is shared; the gradients of single steps, of which the cosines "
                  "are, only enter those averages.",
                  history.method)
            : "What the conflict method multiplied each task's gradient by, where it is shared.";
    if (history.weight_groups > 1) {
        caption += fmt::format(
            " Mean of the {} groups of conflict.scope, each with weights of its own: detente "
            "explain has a step's.",
            history.weight_groups);
    }
    return caption;
}

LineChart over_time(std::string title, std::string y, const RunRecord& run,
                    const std::vector<std::string>& names,
                    const std::vector<ConflictHistory::Series>& series) {
    LineChart chart{
        std::move(title), axis_title(Against::seconds, run.virtual_time), std::move(y), {}};
    for (std::size_t i = 0; i < series.size(); ++i) {
        chart.curves.push_back({names[i], points_of(series[i])});
    }
    return chart;
}

void show_weights(Page& page, const RunRecord& run, const ConflictHistory& history) {
    if (history.weighs == Weighs::nothing) {
        page.paragraph(history.method +
                       " decides coordinate by coordinate: there are no weights to show.");
    }
    if (history.weights.empty()) return;
    page.figure(
        draw(over_time("Weights over the run", "mean weight", run, history.tasks, history.weights)),
        weights_caption(history));
}

void show_shares(Page& page, const RunRecord& run, const ConflictHistory& history) {
    LineChart share{"Steps in conflict over the run",
                    axis_title(Against::seconds, run.virtual_time),
                    "steps in conflict, %",
                    {{"in conflict", {}}}};
    for (const auto& [x, y] : history.in_conflict) {
        share.curves[0].points.push_back({x, 100 * y});
    }
    page.figure(draw(share),
                "Share of the steps in which some pair of tasks had a cosine below zero, over "
                "what they share.");
}

void show_norms(Page& page, const RunRecord& run, const ConflictHistory& history) {
    page.figure(draw(over_time("Lengths of the tasks' gradients over the run", "mean length", run,
                               history.tasks, history.norms)),
                "Mean length of each task's gradient, over what is shared: a task much longer "
                "than the others outvotes them in a plain sum.");
}

void show_history(Page& page, const RunRecord& run, const ConflictHistory& history) {
    page.figure(
        draw(over_time("Cosine of task pairs over the run", "mean cosine", run, history.pairs,
                       history.over_time)),
        fmt::format("Mean cosine over time, of the {} most opposed pair{}: below zero a step "
                    "that helps one task hurts the other.",
                    history.pairs.size(), history.pairs.size() == 1 ? "" : "s"));
    show_shares(page, run, history);
    if (!history.layers.empty()) {
        page.figure(draw(HeatMap{"Mean cosine of task pairs by layer", history.layers,
                                 history.by_layer, history.pairs}),
                    "Where they conflict: mean cosine layer by layer.");
    }
    show_norms(page, run, history);
    show_weights(page, run, history);
}

void show_cosines(Page& page, const RunRecord& run, const ConflictHistory& history) {
    if (run.cosines.size() < 2) return;
    page.heading("Do the tasks agree?");
    page.figure(
        draw(HeatMap{"Mean cosine of each pair of task gradients", run.cosine_tasks, run.cosines}),
        "Mean cosine between the gradients of each pair of tasks on what they share, over "
        "all steps: orange pairs pull the same way, blue ones against each other.");
    std::vector<std::vector<std::string>> rows;
    for (const TaskSummary& task : run.by_task) {
        rows.push_back({task.task, fmt::format("{:.4g}", task.norm_mean),
                        task.weight_mean ? fmt::format("{:.4f}", *task.weight_mean) : "none"});
    }
    if (!rows.empty()) page.table({"task", "mean length of its gradient", "mean weight"}, rows);
    if (!run.layers_error.empty()) {
        page.paragraph("Nothing by layer: " + run.layers_error + ".");
    }
    if (!history.empty()) show_history(page, run, history);
}

void show_across(Page& page, const RunRecord& run) {
    if (run.across.empty()) return;
    page.heading("What servers saw across workers");
    page.paragraph(
        "Cosines of each arriving gradient of a shared block with the server's average of another "
        "task's, over all blocks and updates: no worker sees two tasks' gradients.");
    std::vector<std::vector<std::string>> rows;
    for (const AcrossSummary::Pair& pair : run.across) {
        rows.push_back({pair.a + " / " + pair.b, fmt::format("{:+.3f}", pair.mean),
                        percent_text(pair.negative_share)});
    }
    page.table({"pair", "mean cosine", "below zero"}, rows);
}

void show_timeline(Page& page, const RunRecord& run, const Timeline& timeline) {
    const std::string overview = draw_overview(timeline);
    if (overview.empty() && run.workers.empty()) return;
    page.heading("Who did what when");
    const std::string computing =
        timeline.step_scope
            ? "Computing includes what travels and the wait for the step's decision."
            : "Computing includes what travels.";
    page.figure(overview,
                fmt::format("Share of time each worker computed, pushed and waited for its next "
                            "weights, over the run. {}",
                            computing));
    page.figure(draw_detail(timeline),
                "Single steps in the middle of the run. A dark tick ends a push whose updates were "
                "all applied, an orange one a push of which some were wasted.");
    std::vector<std::vector<std::string>> rows;
    for (const WorkerSummary& worker : run.workers) {
        const double known = worker.computing_s + worker.waiting_s;
        rows.push_back({fmt::format("worker:{}", worker.worker), with_commas(worker.steps),
                        with_commas(worker.samples), fmt::format("{:.2f}", worker.computing_s),
                        fmt::format("{:.2f}", worker.waiting_s),
                        percent_text(known > 0 ? worker.computing_s / known : 0)});
    }
    constexpr std::size_t kMostRows = 64;
    if (rows.size() > kMostRows) rows.resize(kMostRows);
    if (!rows.empty()) {
        page.table({"worker", "steps", "samples", "computing, s", "waiting, s", "computing"}, rows);
    }
}

}  // namespace

std::string run_page(const RunRecord& run, const Timeline& timeline,
                     const ConflictHistory& conflicts) {
    Page page(run.job.empty() ? "A run" : run.job);
    page.paragraph(lead_of(run), "lead");
    if (run.failed) page.paragraph("Failed: " + run.error, "failed");
    std::vector<std::string> remarks = run.remarks;
    remarks.insert(remarks.end(), timeline.remarks.begin(), timeline.remarks.end());
    page.remarks(remarks);
    show_figures(page, run);
    show_loss(page, run);
    show_accuracy(page, run);
    show_staleness(page, run);
    show_gaps(page, run);
    show_updates(page, run);
    show_cosines(page, run, conflicts);
    show_across(page, run);
    show_step_times(page, run);
    show_timeline(page, run, timeline);
    page.heading("Where it comes from");
    page.paragraph("Run directory: " + run.directory);
    if (!run.job_text.empty()) page.folded("The resolved job", run.job_text);
    return page.finish();
}

}  // namespace detente
