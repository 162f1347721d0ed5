// Learning-rate schedules, as pure functions of samples applied to a block: the number of workers,
// bsp and buffering do not move them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/result.h"

namespace detente {

struct ScheduleConfig {
    std::string name = "constant";     // constant | step | cosine
    std::uint64_t warmup_samples = 0;  // linear from 0 to 1 before any schedule starts
    std::uint64_t step_samples = 0;    // step: every so many samples …
    double gamma = 0.1;                // … multiply by gamma
    std::uint64_t total_samples = 0;   // cosine: length, warm-up included
    double floor = 0;                  // cosine: lowest factor
};

std::vector<std::string> schedule_names();
// bad_job: unknown name, step without step_samples, cosine without total_samples, gamma ≤ 0 …
Result<void> check_schedule(const ScheduleConfig& config);
// Factor on the base learning rate once `samples_applied` samples went into the block.
// Requires: check_schedule(config) succeeded.
double schedule_factor(const ScheduleConfig& config, std::uint64_t samples_applied);
// Whether the factor is 0 somewhere: at the start of a warm-up, at the end of a cosine to 0.
bool reaches_zero(const ScheduleConfig& config);

}  // namespace detente
