// The books of gradients, counted in (step, block): every block of every opened step is somewhere.
//   computed = applied + rejected + cancelled + lost + in flight
// Each shard's books balance alone; a run's are their sum. A run whose books do not balance fails.
#pragma once

#include <cstdint>
#include <string>

#include "common/result.h"

namespace detente {

struct Books {
    std::uint64_t computed = 0;
    std::uint64_t applied = 0;
    std::uint64_t rejected = 0;
    std::uint64_t cancelled = 0;
    std::uint64_t lost = 0;
    std::uint64_t in_flight = 0;  // opened and not settled; buffered counts here

    void add(const Books& other);
    // internal, with every figure and the difference, if they do not balance.
    Result<void> balance(const std::string& whose) const;
};

}  // namespace detente
