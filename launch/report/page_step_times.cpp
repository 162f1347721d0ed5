// Where a step's time goes, on the page of one run.
#include <fmt/format.h>

#include "launch/report/page_parts.h"
#include "launch/report/step_time_stretches.h"

namespace detente {
namespace {

std::string times_caption(const RunRecord& run) {
    return fmt::format(
        "A step lasts from the start of a worker's gradient to the start of its next. In the mean "
        "that is {}. Compute: the gradient and the push made of it. What is left it was "
        "blocked by answers on the wire, in the queue at their shard (or in a full link), by the "
        "shard's own work on them (apply), or it waited: for a batch, the staleness policy, the "
        "others of its node. What travels while a worker computes costs no time and is not "
        "here.{}",
        text_of(run.step_times),
        run.virtual_time
            ? " In a simulated run a shard takes what [simulate.shard] says, or no time."
            : "");
}

// Of a run that was killed, from its last point.
std::vector<std::pair<std::size_t, StepTimes>> workers_of(const RunRecord& run) {
    std::vector<std::pair<std::size_t, StepTimes>> workers;
    for (const WorkerSummary& worker : run.workers) {
        workers.emplace_back(worker.worker, worker.step_times);
    }
    if (!workers.empty() || run.points.empty()) return workers;
    for (const StepTimes& times : run.points.back().step_times) {
        workers.emplace_back(workers.size(), times);
    }
    return workers;
}

}  // namespace

void show_step_times(Page& page, const RunRecord& run) {
    if (!(run.step_times.mean_ms() > 0)) return;
    page.heading("Where a step's time goes");
    constexpr std::size_t kMostRows = 32;
    ShareBars bars{"Where a step's time goes, worker by worker", {}, {}, "ms"};
    for (std::size_t part = 0; part < kStepTimeParts; ++part) {
        bars.parts.emplace_back(kStepTimeNames[part], palette(part));  // as the curves below
    }
    std::vector<std::vector<std::string>> rows;
    for (const auto& [worker, times] : workers_of(run)) {
        if (times.steps == 0 || rows.size() == kMostRows) continue;
        ShareBars::Row& bar = bars.rows.emplace_back();
        bar.name = fmt::format("worker:{}", worker);
        auto& row = rows.emplace_back(std::vector<std::string>{bar.name});
        for (std::size_t part = 0; part < kStepTimeParts; ++part) {
            bar.values.push_back(times.mean_ms(part));
            row.push_back(fmt::format("{:.3f}", bar.values.back()));
        }
        row.push_back(fmt::format("{:.3f}", times.mean_ms()));
    }
    if (rows.empty()) return;
    page.figure(draw(bars), times_caption(run));
    std::vector<std::string> header = {"worker"};
    for (const char* name : kStepTimeNames) header.push_back(std::string(name) + ", ms");
    header.emplace_back("a step, ms");
    page.table(header, rows);
    const std::vector<StepTimeStretch> stretches = stretches_of_all(run.points);
    if (stretches.size() < 2) return;
    LineChart chart{"Where a step's time goes over the run",
                    run.virtual_time ? "virtual seconds of training" : "seconds of training",
                    "ms of a step, mean of the workers",
                    {}};
    for (std::size_t part = 0; part < kStepTimeParts; ++part) {
        Curve& curve = chart.curves.emplace_back(Curve{kStepTimeNames[part], {}});
        for (const StepTimeStretch& stretch : stretches) {
            curve.points.push_back({stretch.end_s, stretch.times.mean_ms(part)});
        }
    }
    page.figure(draw(chart),
                "The same over the run: the mean of the steps that ended since the point before.");
}

}  // namespace detente
