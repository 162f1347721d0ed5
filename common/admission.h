// Whether an arriving gradient gets one verdict per block, each shard by itself, or one for all
// shards of its push, by the lead shard.
#pragma once

#include <cstdint>

namespace detente {

enum class Admission : std::uint8_t { block = 0, step = 1 };

inline const char* name_of(Admission admission) {
    return admission == Admission::step ? "step" : "block";
}

}  // namespace detente
