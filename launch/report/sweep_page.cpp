// The page of a sweep.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/progress.h"
#include "launch/report/page.h"
#include "launch/report/page_parts.h"

namespace detente {
namespace {

constexpr std::size_t kMostCurves = 14;
constexpr std::size_t kMostMaps = 12;

std::vector<double> accuracies(const SweepGroup& group) {
    std::vector<double> values;
    for (const RunRecord& run : group.runs) values.push_back(mean_accuracy(run));
    return values;
}

bool any_virtual(const SweepRuns& sweep) {
    return std::any_of(sweep.groups.begin(), sweep.groups.end(), [](const SweepGroup& group) {
        return std::any_of(group.runs.begin(), group.runs.end(),
                           [](const RunRecord& run) { return run.virtual_time; });
    });
}

void show_table(Page& page, const SweepRuns& sweep) {
    page.heading("All cells");
    const SweepTable table = table_of(sweep);
    page.table(table.header, table.rows);
    page.paragraph(
        "Mean over the seeds, with the lowest and the highest in brackets; test accuracy "
        "per task.");
}

void show_failures(Page& page, const SweepRuns& sweep) {
    std::vector<std::string> failures;
    for (const SweepCell& cell : sweep.record.cells) {
        if (cell.state == CellState::done) continue;
        failures.push_back(fmt::format("{}, seed {}: {}{}", title_of(cell), cell.seed,
                                       name_of(cell.state),
                                       cell.error.empty() ? "" : ": " + cell.error));
    }
    page.remarks(failures);
}

void show_loss(Page& page, const SweepRuns& sweep) {
    page.heading("Loss");
    for (const Against against : {Against::seconds, Against::updates}) {
        LineChart chart{"Mean loss of each cell",
                        axis_title(against, any_virtual(sweep)),
                        "training loss, mean of tasks",
                        {}};
        for (const SweepGroup& group : sweep.groups) {
            if (group.runs.empty() || chart.curves.size() == kMostCurves) continue;
            std::vector<std::vector<Point>> runs;
            for (const RunRecord& run : group.runs) {
                if (!run.points.empty()) runs.push_back(mean_loss_points(run, against));
            }
            MeanCurve curve = mean_curve(runs);
            const bool several = runs.size() > 1;
            chart.curves.push_back({group.title, std::move(curve.mean),
                                    several ? std::move(curve.low) : std::vector<Point>{},
                                    several ? std::move(curve.high) : std::vector<Point>{}});
        }
        const std::string left_out =
            chart.curves.size() == kMostCurves
                ? fmt::format(" Only the first {} cells are drawn; the table has all.", kMostCurves)
                : "";
        page.figure(draw(chart),
                    fmt::format("Training loss, mean of the tasks and of the seeds{}; the bands "
                                "reach from the lowest seed to the highest.{}",
                                against == Against::seconds ? ", against the run's clock"
                                                            : ", against applied updates",
                                left_out));
    }
}

void show_accuracy(Page& page, const SweepRuns& sweep) {
    DotRows dots{"Test accuracy of each run", "test accuracy, mean of tasks", {}};
    for (const SweepGroup& group : sweep.groups) {
        if (!group.runs.empty()) dots.rows.push_back({group.title, accuracies(group)});
    }
    const std::string drawing = draw(dots);
    if (drawing.empty()) return;
    page.heading("Accuracy and its spread");
    page.figure(drawing, "One ring per run; the orange tick is the mean over the seeds.");
}

void show_updates(Page& page, const SweepRuns& sweep) {
    ShareBars bars{"What became of the updates", outcome_parts(), {}};
    for (const SweepGroup& group : sweep.groups) {
        Books books;
        for (const RunRecord& run : group.runs) books.add(run.books);
        if (books.computed > 0) bars.rows.push_back({group.title, outcomes_of(books)});
    }
    if (bars.rows.empty()) return;
    page.heading("What became of the updates");
    page.figure(draw(bars),
                "Of all updates of one block that the runs of a cell computed: what was "
                "applied, and what was wasted.");
}

// Drawings of single cells, one beneath the other.
void show_cells(Page& page, const SweepRuns& sweep) {
    page.heading("Cell by cell");
    std::size_t shown = 0;
    for (const SweepGroup& group : sweep.groups) {
        if (group.runs.empty() || shown++ == kMostMaps) continue;
        Histogram histogram{"Staleness, " + group.title, "staleness, in versions", {}};
        for (const RunRecord& run : group.runs) {
            const auto& bins = run.staleness_histogram;
            histogram.bins.resize(std::max(histogram.bins.size(), bins.size()));
            for (std::size_t i = 0; i < bins.size(); ++i) histogram.bins[i] += bins[i];
        }
        page.figure(draw(histogram),
                    group.title + ": staleness of the applied updates, all seeds together.");
        const RunRecord& first = group.runs.front();
        if (first.cosines.size() > 1) {
            page.figure(draw(HeatMap{"Cosines, " + group.title, first.cosine_tasks, first.cosines}),
                        group.title + ": mean cosine of each pair of tasks, first seed.");
        }
        if (group.timeline) {
            page.figure(draw_detail(*group.timeline),
                        group.title + ": steps in the middle of the first seed's run.");
        }
    }
    if (sweep.groups.size() > kMostMaps) {
        page.paragraph(fmt::format("Only the first {} cells are drawn here.", kMostMaps));
    }
}

}  // namespace

std::string sweep_page(const SweepRuns& sweep) {
    Page page(sweep.record.job.empty() ? "A sweep" : sweep.record.job + ": a sweep");
    std::size_t done = 0;
    for (const SweepGroup& group : sweep.groups) done += group.runs.size();
    page.paragraph(
        fmt::format("{} of {} cells done, by detente {}{}", done, sweep.record.cells.size(),
                    sweep.record.verb, any_virtual(sweep) ? ", on virtual time" : ""),
        "lead");
    show_failures(page, sweep);
    page.remarks(sweep.remarks);
    show_table(page, sweep);
    show_accuracy(page, sweep);
    show_loss(page, sweep);
    show_updates(page, sweep);
    show_cells(page, sweep);
    page.heading("Where it comes from");
    page.paragraph("Folder of the sweep: " + sweep.directory);
    return page.finish();
}

}  // namespace detente
