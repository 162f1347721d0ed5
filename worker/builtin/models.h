// The builtin models, one file each; made by the catalog only.
#pragma once

#include "worker/builtin/options.h"

namespace detente {

Result<std::unique_ptr<Engine>> make_null_engine(BuiltinOptions& options);
Result<std::unique_ptr<Engine>> make_quadratic_engine(BuiltinOptions& options, std::uint64_t seed);
Result<std::unique_ptr<Engine>> make_logistic_engine(BuiltinOptions& options,
                                                     const EngineOptions& engine);

}  // namespace detente
