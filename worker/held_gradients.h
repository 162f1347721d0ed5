// What the compute thread holds between the two halves of a step.
#pragma once

#include <memory>
#include <vector>

#include "common/partition/plan.h"
#include "common/work.h"
#include "worker/engine.h"

namespace detente {

// A vector per shared block and owner, [block · T + task]: averages or sums of squares. Empty where
// there is none.
using TaskVectors = std::vector<std::vector<float>>;
// A vector per gate and block that it gates: what the gate did to the step (worker/gate_rows.h).
using GateVectors = std::vector<std::vector<std::vector<float>>>;

struct HeldGradients : GradientSet {
    // One, or for methods that need a second batch the two halves of the batch.
    std::vector<std::shared_ptr<const TaskGradients>> batches;
    std::vector<double> shares;         // of the samples; sum 1
    std::vector<std::size_t> group_of;  // by block id: whose weights it takes
    // Of methods that keep some: as they are after this step.
    std::shared_ptr<const TaskVectors> vectors;
    std::shared_ptr<const GateVectors> gates;  // likewise, of models with gates
    ConflictSpace space = ConflictSpace::parameters;
};

// Row of each task for this block; nullptr where the task does not own it.
std::vector<const float*> rows_of(const TaskGradients& gradients, const Block& block,
                                  std::size_t tasks);

}  // namespace detente
