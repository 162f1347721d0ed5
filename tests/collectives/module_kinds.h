// The modules under test, as far as they were built.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tests/collectives/kinds.h"

namespace detente::testing {

std::vector<Kind> module_kinds();
// Backends over NCCL's stand-in, for other tests; empty if the module was not built.
MakeBackend nccl_over_standin(const std::string& run);
// NVIDIA's, by their device files.
std::size_t gpus_here();
// Over NCCL and CUDA themselves.
MakeBackend nccl_on_gpus(const std::string& run);

}  // namespace detente::testing
