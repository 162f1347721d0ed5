// What a run depends on besides its job: what its bits are computed by, as the ledger's header
// records it, and how much memory there is for it.
#pragma once

#include <cstdint>
#include <string>

namespace detente {

// "instruction set AVX2, 1 intra-op thread, LibTorch 2.13.0": of this process. `versions` = of the
// libraries it computes with; empty = none but ours, which the build names.
std::string machine_description(std::uint32_t intra_op_threads, const std::string& versions);
// Bytes of memory that this machine has, used or not.
std::uint64_t memory_of_this_machine();

}  // namespace detente
