#include "worker/torch/graph.h"

#include <torch/csrc/autograd/variable.h>

#include <vector>

namespace detente {

std::set<const GraphNode*> nodes_below(const torch::Tensor& value,
                                       const std::function<bool(const GraphNode&)>& ends) {
    std::set<const GraphNode*> nodes;
    std::vector<const GraphNode*> open;
    if (value.grad_fn()) open.push_back(value.grad_fn().get());
    while (!open.empty()) {
        const GraphNode* node = open.back();
        open.pop_back();
        if (!nodes.insert(node).second || (ends && ends(*node))) continue;
        for (const torch::autograd::Edge& edge : node->next_edges()) {
            if (edge.function) open.push_back(edge.function.get());
        }
    }
    return nodes;
}

const GraphNode* node_of_leaf(const torch::Tensor& leaf) {
    return torch::autograd::impl::gradient_edge(leaf).function.get();
}

}  // namespace detente
