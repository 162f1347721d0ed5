// A layer: tensors whose names agree up to the last '.' ("trunk.conv1" has .weight and .bias).
// Conflict is resolved by layer where conflict.scope says so, and recorded by layer.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/partition/plan.h"

namespace detente {

std::string layer_of(const std::string& tensor);

// Layers that hold blocks two tasks or more update, numbered in the order of their first such
// block.
struct SharedLayers {
    std::vector<std::string> names;
    std::vector<std::size_t> of_block;  // by block id; 0 also for blocks that are not shared
};
// `tensors`: the model's, by index.
SharedLayers shared_layers(const Plan& plan, const std::vector<std::string>& tensors);
SharedLayers shared_layers(const Plan& plan, const ModelDescription& model);

// Which pairs of tasks update a block together, T×T: only those have a cosine.
std::vector<bool> sharing_pairs(const Plan& plan, std::size_t tasks);

}  // namespace detente
