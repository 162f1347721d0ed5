#include "common/conflict/aggregator.h"

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

}  // namespace detente
