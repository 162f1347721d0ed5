#include "common/conflict/aggregator.h"

#include <cstdint>
#include <numeric>

#include "common/conflict/members.h"
#include "common/invariant.h"

namespace detente {

const char* name_of(AggregatorStatus status) {
    switch (status) {
        case AggregatorStatus::ok:
            return "ok";
        case AggregatorStatus::all_zero:
            return "all_zero";
        case AggregatorStatus::degenerate:
            return "degenerate";
    }
    return "unknown";
}

// How many values of no task, lists and matrices there are follows from how a state's length grows.
std::vector<std::size_t> Aggregator::state_places(TaskSet members, std::size_t tasks) const {
    const auto length = [this](std::size_t n) {
        return static_cast<std::int64_t>(initial_state(n).values.size());
    };
    const std::int64_t matrices = (length(3) - 2 * length(2) + length(1)) / 2;
    const std::int64_t lists = length(2) - length(1) - 3 * matrices;
    const std::int64_t before = length(1) - lists - matrices;
    const auto n = static_cast<std::int64_t>(tasks);
    invariant(
        before >= 0 && lists >= 0 && matrices >= 0 &&
            before + (lists + matrices * n) * n == length(tasks),
        "a method's state is values of no task, lists of tasks and matrices of tasks by tasks");
    const std::vector<std::size_t> own = indices_of(members, tasks);
    std::vector<std::size_t> places(static_cast<std::size_t>(before));
    std::iota(places.begin(), places.end(), std::size_t{0});
    std::size_t first = places.size();
    for (std::int64_t list = 0; list < lists; ++list, first += tasks) {
        for (const std::size_t i : own) places.push_back(first + i);
    }
    for (std::int64_t matrix = 0; matrix < matrices; ++matrix, first += tasks * tasks) {
        for (const std::size_t i : own) {
            for (const std::size_t j : own) places.push_back(first + i * tasks + j);
        }
    }
    return places;
}

AverageStep Aggregator::average(std::span<const double> /*losses*/, std::size_t /*tasks*/) const {
    invariant(false, "a method that needs averages says how they are made");
    return {};
}

void Aggregator::combine(const CoordinateRows<float>& /*block*/, std::span<float> /*out*/) const {
    invariant(false, "a method that works by coordinates combines blocks");
}

void Aggregator::combine(const CoordinateRows<double>& /*block*/, std::span<double> /*out*/) const {
    invariant(false, "a method that works by coordinates combines blocks");
}

}  // namespace detente
