// What the bits of a computation depend on besides the job, as the ledger's header records it.
#pragma once

#include <cstdint>
#include <string>

namespace detente {

// "instruction set AVX2, 1 intra-op thread, LibTorch 2.13.0": of this process. `versions` = of the
// libraries it computes with; empty = none but ours, which the build names.
std::string machine_description(std::uint32_t intra_op_threads, const std::string& versions);

}  // namespace detente
