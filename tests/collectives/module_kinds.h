// The modules under test, as far as they were built.
#pragma once

#include "tests/collectives/kinds.h"

namespace detente::testing {

std::vector<Kind> module_kinds();
// Backends over NCCL's stand-in, for other tests; empty if the module was not built.
MakeBackend nccl_over_standin(const std::string& run);

}  // namespace detente::testing
