#include "common/conflict/aggregator.h"

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
