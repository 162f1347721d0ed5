// Walks over an autograd graph: what feeds a value, and by which ways.
//
// Thread: the engine's compute thread, while the graph is alive.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/types.h>

#include <functional>
#include <set>

namespace detente {

using GraphNode = torch::autograd::Node;

// The nodes that feed `value`, its own included; none where it has no graph. Does not go below
// nodes for which `ends` holds.
std::set<const GraphNode*> nodes_below(const torch::Tensor& value,
                                       const std::function<bool(const GraphNode&)>& ends = {});

// The node where a graph meets this tensor, a parameter or another leaf. Requires: it asks for a
// gradient.
const GraphNode* node_of_leaf(const torch::Tensor& leaf);

}  // namespace detente
