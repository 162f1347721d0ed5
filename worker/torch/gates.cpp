#include "worker/torch/gates.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "worker/torch/gate_graph.h"
#include "worker/torch/graph.h"

namespace detente {

namespace {

constexpr const char* kParameters = "parameters";

// Autograd keeps numbers, not pointers of ours; the model outlives its graphs.
const GateParameters* parameters_of(const torch::autograd::AutogradContext& kept) {
    const auto at = kept.saved_data.find(kParameters);
    return at == kept.saved_data.end()
               ? nullptr
               : reinterpret_cast<const GateParameters*>(at->second.toInt());
}

struct GateFunction : torch::autograd::Function<GateFunction> {
    static torch::Tensor forward(torch::autograd::AutogradContext* kept,
                                 const torch::Tensor& values, std::int64_t parameters) {
        kept->saved_data[kParameters] = parameters;
        return values;  // autograd makes it a value of its own
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* kept,
                                                   const torch::autograd::variable_list& gradient) {
        const GateParameters* gate = parameters_of(*kept);
        const double open = gate->open(gate->backward_of());
        return {open == 1 ? gradient[0] : gradient[0] * open, torch::Tensor()};
    }
};

// nullptr: another node.
const GateParameters* gate_at(const GraphNode& node) {
    const auto* gate = dynamic_cast<const torch::autograd::CppNode<GateFunction>*>(&node);
    return gate == nullptr ? nullptr : parameters_of(gate->ctx_);
}

std::size_t place_of(const torch::Tensor& value, const std::vector<ProbedTensor>& tensors) {
    const auto at = std::find_if(tensors.begin(), tensors.end(), [&](const ProbedTensor& tensor) {
        return tensor.value.unsafeGetTensorImpl() == value.unsafeGetTensorImpl();
    });
    return static_cast<std::size_t>(at - tensors.begin());
}

}  // namespace

void GateParameters::make(const std::vector<Task>& tasks, bool enabled, double initial) {
    enabled_ = enabled;
    for (const Task& task : tasks) {
        const torch::Tensor value = torch::full({1}, initial, torch::kFloat);
        values_.push_back(register_parameter(task.name, value, /*requires_grad=*/enabled));
    }
}

double GateParameters::open(const Task* task) const {
    if (!enabled_ || task == nullptr) return 1;
    return 1 / (1 + std::exp(-values_.at(task->id.value).item<double>()));
}

torch::Tensor Gate::operator()(const torch::Tensor& values) const {
    const bool passes = parameters_ == nullptr || !parameters_->enabled() ||
                        !torch::GradMode::is_enabled() || !values.requires_grad();
    if (passes) return values;
    return GateFunction::apply(values, reinterpret_cast<std::int64_t>(parameters_.get()));
}

std::vector<GateDescription> probe_gates(const std::vector<std::shared_ptr<GateParameters>>& gates,
                                         const std::vector<Task>& tasks,
                                         const std::vector<torch::Tensor>& losses,
                                         std::vector<ProbedTensor>& tensors) {
    std::vector<GateDescription> found;
    for (const auto& gate : gates) {
        const auto is_it = [&](const GraphNode& node) { return gate_at(node) == gate.get(); };
        for (const Task& task : tasks) {
            const std::size_t place = place_of(gate->values()[task.id.value], tensors);
            const std::set<const GraphNode*> all = nodes_below(losses[task.id.value]);
            const bool passes = std::any_of(all.begin(), all.end(),
                                            [&](const GraphNode* node) { return is_it(*node); });
            if (!passes) {
                tensors[place].value.set_requires_grad(false);
                tensors[place].frozen = true;
                continue;
            }
            const std::set<const GraphNode*> around = nodes_below(losses[task.id.value], is_it);
            GateDescription description;
            description.tensor = static_cast<std::uint32_t>(place);
            description.task = task.id;
            for (std::size_t k = 0; k < tensors.size(); ++k) {
                if (tensors[k].frozen || !tensors[k].value.requires_grad()) continue;
                const GraphNode* leaf = node_of_leaf(tensors[k].value);
                if (all.contains(leaf) && !around.contains(leaf)) {
                    description.gated.push_back(static_cast<std::uint32_t>(k));
                }
            }
            if (!tensors[place].frozen) tensors[place].owners.insert(task.id);
            found.push_back(std::move(description));
        }
    }
    return found;
}

}  // namespace detente
