// What a model's graph says of its gates.
//
// Thread: the engine's compute thread, at construction.
#pragma once

#include <memory>
#include <vector>

#include "common/model_description.h"
#include "worker/torch/gates.h"
#include "worker/torch/probe.h"

namespace detente {

// One description per gate and task whose loss passes it, with the tensors whose whole gradient
// does. The a's of these are owned by their task; those of others are frozen. Requires: gates that
// are enabled, and losses with their graphs.
std::vector<GateDescription> probe_gates(const std::vector<std::shared_ptr<GateParameters>>& gates,
                                         const std::vector<Task>& tasks,
                                         const std::vector<torch::Tensor>& losses,
                                         std::vector<ProbedTensor>& tensors);

}  // namespace detente
