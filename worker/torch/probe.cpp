#include "worker/torch/probe.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>

#include <cmath>
#include <set>
#include <utility>

#include "common/nearest_name.h"

namespace detente {

namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;
using Output = std::pair<const Node*, std::uint32_t>;  // a value of the graph: node and which of it

const char* const kOneLossPerTask =
    "; losses(batch) returns one scalar per task, and the engine runs one backward per task: "
    "summed "
    "losses leave nothing to resolve conflicts between";

Error refuse(const std::string& model, const std::string& text) {
    return fail(ErrorCode::bad_model, "model " + model + ": " + text);
}

Output output_of(const torch::Tensor& tensor) {
    return {tensor.grad_fn().get(), tensor.output_nr()};
}

struct Graph {
    std::set<Output> values;        // all that feed the loss, itself apart
    std::set<const Node*> scalars;  // nodes that made a single number, the loss's own included
};

bool makes_scalar(const Node& node) {
    if (node.num_inputs() != 1 || node.next_edges().empty()) return false;  // leaves are parameters
    for (const c10::SymInt& extent : node.input_metadata(0).shape_as_dim_vector()) {
        if (extent != 1) return false;
    }
    return true;
}

Graph graph_below(const torch::Tensor& loss) {
    Graph graph;
    std::set<const Node*> seen;
    std::vector<const Node*> open{loss.grad_fn().get()};
    while (!open.empty()) {
        const Node* node = open.back();
        open.pop_back();
        if (!seen.insert(node).second) continue;
        if (makes_scalar(*node)) graph.scalars.insert(node);
        for (const torch::autograd::Edge& edge : node->next_edges()) {
            if (!edge.function) continue;
            graph.values.insert({edge.function.get(), edge.input_nr});
            open.push_back(edge.function.get());
        }
    }
    return graph;
}

bool share_a_scalar(const Graph& a, const Graph& b) {
    for (const Node* node : a.scalars) {
        if (b.scalars.contains(node)) return true;
    }
    return false;
}

bool same_up_to_a_factor(const variable_list& a, const variable_list& b) {
    double dot = 0;
    double aa = 0;
    double bb = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
        if (a[k].defined() != b[k].defined()) return false;
        if (!a[k].defined()) continue;
        const torch::Tensor x = a[k].to(torch::kDouble);
        const torch::Tensor y = b[k].to(torch::kDouble);
        dot += x.mul(y).sum().item<double>();
        aa += x.square().sum().item<double>();
        bb += y.square().sum().item<double>();
    }
    return aa > 0 && bb > 0 && std::abs(dot) >= (1 - 1e-9) * std::sqrt(aa * bb);
}

std::optional<Error> check_module(const std::string& model, const std::string& name,
                                  const torch::nn::Module& module) {
    const auto buffers = module.named_buffers(/*recurse=*/false);
    if (buffers.is_empty()) return std::nullopt;
    std::string list;
    for (const auto& buffer : buffers) list += (list.empty() ? "" : ", ") + buffer.key();
    return refuse(model, "module \"" + name + "\" (" + module.name() + ") has buffers (" + list +
                             "), which workers do not share: each would have its own; replace it, "
                             "for instance BatchNorm by GroupNorm or LayerNorm");
}

std::optional<Error> check_parameter(const std::string& model, const std::string& name,
                                     const torch::Tensor& value) {
    if (value.scalar_type() == torch::kFloat && value.device().is_cpu() && value.numel() > 0) {
        return std::nullopt;
    }
    return refuse(model, "parameter \"" + name + "\" is " + std::string(value.toString()) + " of " +
                             std::to_string(value.numel()) +
                             " elements; parameters are non-empty float32 tensors on the CPU");
}

// Summed before the backward, as far as one loss's graph shows it.
std::optional<Error> check_graphs(const std::string& model, const std::vector<Task>& tasks,
                                  const std::vector<torch::Tensor>& losses,
                                  const std::vector<Graph>& graphs,
                                  const std::vector<variable_list>& gradients) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        for (std::size_t j = 0; j < tasks.size(); ++j) {
            if (i != j && graphs[i].values.contains(output_of(losses[j]))) {
                return refuse(model, "the loss of task " + tasks[i].name +
                                         " contains the loss of task " + tasks[j].name +
                                         ": tasks were summed before the backward" +
                                         kOneLossPerTask);
            }
            if (i < j && share_a_scalar(graphs[i], graphs[j]) &&
                same_up_to_a_factor(gradients[i], gradients[j])) {
                return refuse(model, "the losses of tasks " + tasks[i].name + " and " +
                                         tasks[j].name +
                                         " are made from one number and have the same gradient up "
                                         "to a factor: tasks were summed before the backward" +
                                         kOneLossPerTask);
            }
        }
    }
    return std::nullopt;
}

}  // namespace

Result<std::vector<ProbedTensor>> probe_tensors(const std::string& model, Model& module,
                                                const std::vector<std::string>& frozen) {
    for (const auto& child : module.named_modules("", /*include_self=*/true)) {
        if (auto error = check_module(model, child.key(), *child.value())) return *error;
    }
    std::vector<ProbedTensor> tensors;
    std::set<const void*> seen;
    std::set<std::string> unused(frozen.begin(), frozen.end());
    std::vector<std::string> names;
    for (const auto& parameter : module.named_parameters()) {
        const std::string& name = parameter.key();
        torch::Tensor value = parameter.value();
        if (auto error = check_parameter(model, name, value)) return *error;
        if (!seen.insert(value.unsafeGetTensorImpl()).second) continue;
        if (!value.is_contiguous()) value.set_data(value.contiguous());
        names.push_back(name);
        bool is_frozen = !value.requires_grad();  // the model itself may freeze one
        for (const std::string& pattern : frozen) {
            if (!name_matches(pattern, name)) continue;
            unused.erase(pattern);
            is_frozen = true;
        }
        value.set_requires_grad(!is_frozen);
        tensors.push_back({name, value, {}, is_frozen});
    }
    if (tensors.empty()) return refuse(model, "has no parameters; register_module its parts");
    if (!unused.empty()) {
        return refuse(model, "frozen pattern \"" + *unused.begin() +
                                 "\" matches none of its tensors; the nearest name is \"" +
                                 nearest_name(*unused.begin(), names) + "\"");
    }
    return tensors;
}

std::optional<Error> check_losses(const std::string& model, const std::vector<Task>& tasks,
                                  const std::vector<torch::Tensor>& losses) {
    if (losses.size() == 1 && tasks.size() > 1) {
        return refuse(model, "losses(batch) returned one loss for " + std::to_string(tasks.size()) +
                                 " tasks: tasks were summed before the backward" + kOneLossPerTask);
    }
    if (losses.size() != tasks.size()) {
        return refuse(model, "losses(batch) returned " + std::to_string(losses.size()) +
                                 " losses for " + std::to_string(tasks.size()) + " tasks" +
                                 kOneLossPerTask);
    }
    std::set<Output> seen;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
        const std::string whose = "the loss of task " + tasks[t].name;
        if (!losses[t].defined() || losses[t].numel() != 1) {
            const std::string found =
                losses[t].defined() ? std::to_string(losses[t].numel()) + " numbers" : "undefined";
            return refuse(model, whose + " is " + found +
                                     "; expected one number, for instance the mean over the batch");
        }
        if (!losses[t].grad_fn()) {
            return refuse(model, whose +
                                     " has no gradient: it was detached, computed under "
                                     "NoGradGuard, or reaches only frozen tensors");
        }
        if (!seen.insert(output_of(losses[t])).second) {
            return refuse(model, whose +
                                     " is the same tensor as another task's: tasks were summed "
                                     "before the backward" +
                                     kOneLossPerTask);
        }
    }
    return std::nullopt;
}

std::optional<Error> probe_owners(const std::string& model, const std::vector<Task>& tasks,
                                  const std::vector<torch::Tensor>& losses,
                                  std::vector<ProbedTensor>& tensors) {
    variable_list trainable;
    std::vector<std::size_t> index;
    for (std::size_t k = 0; k < tensors.size(); ++k) {
        if (tensors[k].frozen) continue;
        trainable.push_back(tensors[k].value);
        index.push_back(k);
    }
    std::vector<Graph> graphs;
    std::vector<variable_list> gradients;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
        graphs.push_back(graph_below(losses[t]));
        gradients.push_back(torch::autograd::grad({losses[t]}, trainable, {}, /*retain_graph=*/true,
                                                  /*create_graph=*/false, /*allow_unused=*/true));
        for (std::size_t k = 0; k < trainable.size(); ++k) {
            const torch::Tensor& gradient = gradients[t][k];
            if (!gradient.defined()) continue;
            ProbedTensor& tensor = tensors[index[k]];
            if (gradient.layout() != torch::kStrided) {
                return refuse(model, "tensor \"" + tensor.name +
                                         "\" has a sparse gradient; build its Embedding with "
                                         "sparse(false)");
            }
            tensor.owners.insert(tasks[t].id);
        }
    }
    if (auto error = check_graphs(model, tasks, losses, graphs, gradients)) return error;
    for (const ProbedTensor& tensor : tensors) {
        if (tensor.frozen || !tensor.owners.empty()) continue;
        return refuse(model, "no task's loss reaches tensor \"" + tensor.name +
                                 "\", so it would never be trained; use it, remove it, or freeze "
                                 "it in the job file");
    }
    return std::nullopt;
}

}  // namespace detente
