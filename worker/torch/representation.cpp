#include "worker/torch/representation.h"

#include "worker/torch/graph.h"
#include "worker/torch/probe.h"
#include "worker/torch/task.h"

namespace detente {

namespace {

Error refuse_space(const std::string& model, const std::string& text) {
    return fail(ErrorCode::bad_model, "conflict.space = \"representation\": model " + model + " " +
                                          text + "; or set \"parameters\"");
}

}  // namespace

torch::Tensor Representation::cut(const torch::Tensor& shared) {
    ++calls;
    output = shared;
    leaf = shared.detach().requires_grad_(true);
    return leaf;
}

std::optional<Error> check_cut(const std::string& model, const Representation& representation) {
    if (representation.calls == 1) {
        if (representation.leaf.scalar_type() == torch::kFloat) return std::nullopt;
        return refuse_space(model, std::string("gives heads() a tensor of type ") +
                                       c10::toString(representation.leaf.scalar_type()) +
                                       "; expected float32");
    }
    if (representation.calls == 0) {
        return refuse_space(model,
                            "does not call heads(), which is where its graph would be cut: return "
                            "heads(trunk's output) from forward()");
    }
    return refuse_space(model,
                        "calls heads() " + std::to_string(representation.calls) +
                            " times in one forward, so that its tasks share several tensors: "
                            "call it once, with all that they share in one");
}

Result<std::vector<std::size_t>> probe_representation(const std::string& model,
                                                      const std::vector<Task>& tasks,
                                                      const std::vector<torch::Tensor>& losses,
                                                      const Representation& representation,
                                                      const std::vector<ProbedTensor>& tensors) {
    if (auto error = check_cut(model, representation)) return *error;
    const std::set<const GraphNode*> below = nodes_below(representation.output);
    std::vector<std::set<const GraphNode*>> around;
    for (const torch::Tensor& loss : losses) around.push_back(nodes_below(loss));
    std::vector<std::size_t> trunk;
    for (std::size_t k = 0; k < tensors.size(); ++k) {
        if (tensors[k].frozen) continue;
        const GraphNode* leaf = node_of_leaf(tensors[k].value);
        const bool in_trunk = below.contains(leaf);
        if (in_trunk) trunk.push_back(k);
        std::string past;  // tasks that reach it past the cut
        std::size_t count = 0;
        for (std::size_t t = 0; t < tasks.size(); ++t) {
            if (!around[t].contains(leaf)) continue;
            past += (past.empty() ? "" : " and ") + tasks[t].name;
            ++count;
        }
        if (in_trunk && count > 0) {
            return refuse_space(
                model, "has tensor \"" + tensors[k].name + "\" in its trunk, but the loss of " +
                           past +
                           " also reaches it past the trunk's output: let all that tasks "
                           "share go through heads()");
        }
        if (count > 1) {
            return refuse_space(model,
                                "has tensor \"" + tensors[k].name + "\", which " + past +
                                    " share past the trunk's output: let all that tasks share go "
                                    "through heads()");
        }
    }
    if (trunk.empty() || tensors[trunk.front()].owners.count() < 2) {
        return refuse_space(
            model,
            "has no trainable tensor below its heads that two tasks share, so that there "
            "is nothing to resolve");
    }
    return trunk;
}

}  // namespace detente
