// The numbers behind a report's drawings, for other programs.
//
// JSON: {"runs":[{"name":…,"settings":{…},"seed":…,"directory":…,"failed":…,"accuracy":{…},
//        "updates":{…},"staleness":{…,"histogram":[…]},"conflict":{…},"workers":[…],"step_time":{…},
//        "steps":…,"samples":…,"wall_s":…,"training_s":…,"samples_per_s":…,
//        "series":[{"seconds":…,"steps":…,"samples":…,"applied":…,"computed":…,"rejected":…,
//                   "cancelled":…,"lost":…,"in_flight":…,"staleness_mean":…,"loss":{task:…}}],
//        "scores":[{"seconds":…,"samples":…,"checkpoint":…,"accuracy":{…}}],"reached_s":…,
//        "gaps":[{"staleness":…,"gradients":…,"gap":…,"cosine":…}]}]}
// reached_s: where it was asked for, null if never; gaps: where they were measured.
// CSV (RFC 4180), one number a line: run,quantity,of,seconds,applied,value; `of` is the task, the
// staleness, the kind of update, the pair or the part of a step that the number is of.
//
// Thread: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/report/run_record.h"
#include "launch/report/sweep_runs.h"

namespace detente {

struct NamedRun {
    std::string name;
    std::vector<std::pair<std::string, std::string>> settings;  // of the sweep's grid
    std::optional<std::uint64_t> seed;                          // likewise
    const RunRecord* run;
    std::optional<double> reach{};  // accuracy to be reached
};
// Of the sweep, which must outlive them.
std::vector<NamedRun> named_runs(const SweepRuns& sweep);

std::string numbers_as_json(const std::vector<NamedRun>& runs);
std::string numbers_as_csv(const std::vector<NamedRun>& runs);

}  // namespace detente
