// Loads model libraries: see load_engine in worker/engine.h. What it opens, LibTorch included, is
// visible to nobody else (RTLD_LOCAL), and resolved at once (RTLD_NOW), so that a library that does
// not fit fails here and not in the middle of training.
#pragma once

#include "worker/engine.h"

namespace detente {

// The name a model library exports its EngineEntry by.
inline constexpr const char* kEngineSymbol = "detente_engine_entry";

}  // namespace detente
