#include "launch/step_times.h"

#include <fmt/core.h>

#include <numeric>

#include "launch/strict_reading.h"

namespace detente {

double StepTimes::mean_ms(std::size_t part) const {
    return steps == 0 ? 0 : static_cast<double>(ms[part] / static_cast<long double>(steps));
}

double StepTimes::mean_ms() const {
    if (steps == 0) return 0;
    const long double sum = std::accumulate(ms.begin(), ms.end(), 0.0L);
    return static_cast<double>(sum / static_cast<long double>(steps));
}

StepTimes& StepTimes::operator+=(const StepTimes& more) {
    steps += more.steps;
    for (std::size_t part = 0; part < kStepTimeParts; ++part) ms[part] += more.ms[part];
    return *this;
}

StepTimes& StepTimes::operator-=(const StepTimes& earlier) {
    steps -= earlier.steps;
    for (std::size_t part = 0; part < kStepTimeParts; ++part) ms[part] -= earlier.ms[part];
    return *this;
}

StepTimes step_times_of(const ProcessView& worker) {
    StepTimes times;
    times.steps = static_cast<std::uint64_t>(worker.value("step_time.steps").value_or(0));
    for (std::size_t part = 0; part < kStepTimeParts; ++part) {
        times.ms[part] =
            worker.value(fmt::format("step_time.{}_ms", kStepTimeNames[part])).value_or(0);
    }
    return times;
}

StepTimes total_step_times(const ClusterView& view) {
    StepTimes total;
    for (const ProcessView& process : view.processes) {
        if (process.node.role == Role::worker) total += step_times_of(process);
    }
    return total;
}

boost::json::object json_of(const StepTimes& times) {
    boost::json::object object{{"steps", times.steps}};
    for (std::size_t part = 0; part < kStepTimeParts; ++part) {
        object[fmt::format("{}_ms", kStepTimeNames[part])] = times.mean_ms(part);
    }
    return object;
}

StepTimes step_times_from(const boost::json::object& object) {
    StepTimes times;
    times.steps = count_at(object, "steps");
    for (std::size_t part = 0; part < kStepTimeParts; ++part) {
        const std::string name = fmt::format("{}_ms", kStepTimeNames[part]);
        const double mean = number_at(object, name);
        constexpr double kMost = 1e15;  // thirty thousand years
        if (!(mean >= 0 && mean <= kMost)) {
            throw BadMember{"'" + name + "' must be a number of milliseconds"};
        }
        times.ms[part] = static_cast<long double>(mean) * static_cast<long double>(times.steps);
    }
    return times;
}

std::string text_of(const StepTimes& times) {
    std::string text = fmt::format("{:.4g} ms a step", times.mean_ms());
    for (std::size_t part = 0; part < kStepTimeParts; ++part) {
        text += fmt::format("{} {} {:.3g}", part == 0 ? ":" : ",", kStepTimeNames[part],
                            times.mean_ms(part));
    }
    return text;
}

}  // namespace detente
