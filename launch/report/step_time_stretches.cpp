#include "launch/report/step_time_stretches.h"

#include <algorithm>
#include <functional>

#include "launch/report/run_record.h"

namespace detente {
namespace {

using Sums = std::function<StepTimes(const SeriesPoint&)>;

void add_stretches(const std::vector<SeriesPoint>& points, WorkerId worker, const Sums& sums_at,
                   std::vector<StepTimeStretch>& stretches) {
    if (points.empty()) return;
    const double zero = points.front().seconds;
    double begin = zero;
    StepTimes before = sums_at(points.front());
    for (const SeriesPoint& point : points) {
        const StepTimes sums = sums_at(point);
        if (sums.steps <= before.steps) continue;
        StepTimes here = sums;
        here -= before;
        stretches.push_back({worker, begin - zero, point.seconds - zero, here});
        begin = point.seconds;
        before = sums;
    }
}

}  // namespace

std::vector<StepTimeStretch> stretches_by_worker(const std::vector<SeriesPoint>& points) {
    std::size_t workers = 0;
    for (const SeriesPoint& point : points) workers = std::max(workers, point.step_times.size());
    std::vector<StepTimeStretch> stretches;
    for (std::size_t i = 0; i < workers; ++i) {
        const Sums own = [i](const SeriesPoint& point) {
            return i < point.step_times.size() ? point.step_times[i] : StepTimes{};
        };
        add_stretches(points, WorkerId{static_cast<std::uint32_t>(i)}, own, stretches);
    }
    return stretches;
}

std::vector<StepTimeStretch> stretches_of_all(const std::vector<SeriesPoint>& points) {
    std::vector<StepTimeStretch> stretches;
    const Sums all = [](const SeriesPoint& point) {
        StepTimes sum;
        for (const StepTimes& one : point.step_times) sum += one;
        return sum;
    };
    add_stretches(points, WorkerId{}, all, stretches);
    return stretches;
}

}  // namespace detente
