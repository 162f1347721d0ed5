// One step, or a few, of any conflict method on gradients written down: JSON in, JSON out. What
// `detente aggregate` does, apart from the command line.
//
//     {"matrix": [[-4,1,1],[6,1,1]], "losses": [1,2], "matrix2": …}    or    {"steps": [{…}, {…}]}
//
// "matrix" has one row per task; "losses" and "matrix2" (an independent batch's) where the method
// needs them. The answer has, per step,
//     {"method", "status", "weights", "result", "gramian", "cosines"}, and where it applies
//     "kkt_residual" (of the method's own equations) and "objective" (the scalar it descends);
// for "steps" a list of such. Weights are of the rows, or of their averages for methods that keep
// some; null for methods that work coordinate by coordinate.
#pragma once

#include <cstdint>
#include <string>

#include "common/conflict/aggregator.h"
#include "common/result.h"

namespace detente {

// bad_job: not JSON, a member missing, unknown or of another kind, an empty or ragged matrix, an
// unknown method or parameter; not_finite: NaN or Inf (or null, which stands for either), naming
// the task.
Result<std::string> aggregate_json(const std::string& input, const AggregatorConfig& config,
                                   std::uint64_t seed);

// The methods, a line each, with paper, needs and parameters.
std::string aggregator_list();

}  // namespace detente
