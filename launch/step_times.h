// Where the steps' time went, as workers report it (worker/step_time.h): sums, their means per step
// and the JSON of both.
#pragma once

#include <array>
#include <boost/json/object.hpp>
#include <cstdint>
#include <string>

#include "launch/cluster_view.h"

namespace detente {

inline constexpr std::size_t kStepTimeParts = 5;
inline constexpr std::array<const char*, kStepTimeParts> kStepTimeNames = {
    "compute", "wait", "wire", "queue", "apply"};

struct StepTimes {
    std::uint64_t steps = 0;
    // Summed over the steps, in the order of the names. Wider than what is written: a mean that was
    // read gives a sum, and that the same mean again, to the last bit.
    std::array<long double, kStepTimeParts> ms{};

    double mean_ms(std::size_t part) const;  // 0 without steps
    double mean_ms() const;                  // of a whole step
    StepTimes& operator+=(const StepTimes& more);
    StepTimes& operator-=(const StepTimes& earlier);
};

StepTimes step_times_of(const ProcessView& worker);
StepTimes total_step_times(const ClusterView& view);

// {"steps":…,"compute_ms":…,"wait_ms":…,"wire_ms":…,"queue_ms":…,"apply_ms":…}, means per step.
boost::json::object json_of(const StepTimes& times);
// Of what json_of() wrote. Throws BadMember.
StepTimes step_times_from(const boost::json::object& object);
// "12.3 ms a step: compute 9.1, wait 1.2, …"
std::string text_of(const StepTimes& times);

}  // namespace detente
