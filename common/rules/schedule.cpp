#include "common/rules/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/nearest_name.h"

namespace detente {

std::vector<std::string> schedule_names() { return {"constant", "step", "cosine"}; }

Result<void> check_schedule(const ScheduleConfig& config) {
    const std::vector<std::string> names = schedule_names();
    if (std::find(names.begin(), names.end(), config.name) == names.end()) {
        return fail(ErrorCode::bad_job,
                    fmt::format("no schedule is called '{}'; did you mean '{}'? Valid: constant, "
                                "step, cosine",
                                config.name, nearest_name(config.name, names)));
    }
    if (config.name == "step" && config.step_samples == 0) {
        return fail(
            ErrorCode::bad_job,
            "schedule 'step' needs step_samples above 0 (after how many samples the rate is "
            "multiplied by gamma), found 0");
    }
    if (!(config.gamma > 0 && std::isfinite(config.gamma))) {
        return fail(ErrorCode::bad_job,
                    fmt::format("schedule '{}': gamma must be finite and above 0, found {}",
                                config.name, config.gamma));
    }
    if (!(config.floor >= 0 && config.floor <= 1)) {
        return fail(ErrorCode::bad_job,
                    fmt::format("schedule '{}': floor must lie in 0 to 1, found {}", config.name,
                                config.floor));
    }
    if (config.name == "cosine" && config.total_samples <= config.warmup_samples) {
        return fail(ErrorCode::bad_job,
                    fmt::format("schedule 'cosine' needs total_samples (its length, warm-up "
                                "included) above warmup_samples = {}, found {}",
                                config.warmup_samples, config.total_samples));
    }
    return {};
}

bool reaches_zero(const ScheduleConfig& config) {
    return config.warmup_samples > 0 || (config.name == "cosine" && config.floor == 0);
}

double schedule_factor(const ScheduleConfig& config, std::uint64_t samples_applied) {
    if (samples_applied < config.warmup_samples) {
        return static_cast<double>(samples_applied) / static_cast<double>(config.warmup_samples);
    }
    const std::uint64_t since = samples_applied - config.warmup_samples;
    if (config.name == "step") {
        const std::uint64_t whole_steps = since / config.step_samples;
        return std::pow(config.gamma, static_cast<double>(whole_steps));
    }
    if (config.name == "cosine") {
        // SGDR (Loshchilov and Hutter 2017), eq. 5, one period.
        const std::uint64_t length = config.total_samples - config.warmup_samples;
        const double part = std::min(1.0, static_cast<double>(since) / static_cast<double>(length));
        return config.floor + (1 - config.floor) * (1 + std::cos(std::numbers::pi * part)) / 2;
    }
    return 1;
}

}  // namespace detente
