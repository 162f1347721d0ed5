// Where the steps' time went over the run: stretches between two points of a run's series, each
// with the means of the steps that ended in it.
//
// Thread: pure functions.
#pragma once

#include <vector>

#include "common/ids.h"
#include "launch/step_times.h"

namespace detente {

struct SeriesPoint;

// Seconds by the coordinator's clock, since the series' first point: the start of training, to
// within a heartbeat.
struct StepTimeStretch {
    WorkerId worker;  // meaningless where it is of all
    double begin_s = 0;
    double end_s = 0;
    StepTimes times;
};
// By worker, then time. A point that brought no step to an end belongs to the next stretch.
std::vector<StepTimeStretch> stretches_by_worker(const std::vector<SeriesPoint>& points);
std::vector<StepTimeStretch> stretches_of_all(const std::vector<SeriesPoint>& points);

}  // namespace detente
