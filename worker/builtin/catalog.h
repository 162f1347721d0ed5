// Models that need neither a library nor LibTorch: `model.library = "builtin:NAME"`. For studies of
// staleness, where the model is to be understood, and for simulations of thousands of workers.
// What they draw (optima, noise) is a function of the job's seed and of the batch's random key.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/engine.h"

namespace detente {

inline constexpr std::string_view kBuiltinPrefix = "builtin:";
inline bool is_builtin(std::string_view library) { return library.starts_with(kBuiltinPrefix); }

// (name without the prefix, what it is and which [model.options] it takes).
const std::vector<std::pair<std::string, std::string>>& builtin_models();

// bad_model: no such model; bad_job: an option it does not know or cannot take; bad_dataset. The
// text names the option and what was expected.
Result<std::unique_ptr<Engine>> make_builtin(const std::string& library,
                                             const EngineOptions& options);

}  // namespace detente
