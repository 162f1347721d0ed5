// One step of the engine: its losses, then one backward per task.
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "common/invariant.h"
#include "worker/torch/catching.h"
#include "worker/torch/task_gradients.h"
#include "worker/torch/torch_rows.h"

namespace detente {

std::optional<Error> TaskGradientEngine::check(const GradientRequest& request) const {
    invariant(!request.tasks.empty() && (request.tasks.bits >> 1U) >> (owned_.size() - 1) == 0,
              "a computation is asked for tasks of the model");
    if (request.samples.empty()) {
        return fail(ErrorCode::bad_dataset, "a batch without samples; expected at least one");
    }
    for (const std::uint32_t sample : request.samples) {
        if (sample < description_.training_samples) continue;
        return fail(ErrorCode::bad_dataset, "sample " + std::to_string(sample) +
                                                " of a training set of " +
                                                std::to_string(description_.training_samples) +
                                                "; do all workers read the same data?");
    }
    return std::nullopt;
}

Result<GradientReport> TaskGradientEngine::gradients(const GradientRequest& request) {
    if (auto error = check(request)) return *error;
    const std::string doing = "model " + name_ + ", computing gradients";
    return catching(doing, [&]() -> Result<GradientReport> {
        fix_threads();
        model_->train();
        seed_streams(request.random_key);
        invariant(request.representation == representation_,
                  "gradients are asked for in the space the engine was made for");
        std::optional<DeviceStreams::Scope> scope;
        if (streams_) {
            scope.emplace(*streams_);
            weights_->send();
        }
        Representation cut;
        const auto losses = representation_ ? cut_losses(request.samples, cut)
                                            : model_->losses(batch(request.samples));
        if (auto error = check_losses(name_, model_->tasks(), losses)) return *error;
        if (!representation_) return backwards(request, losses, nullptr);
        if (auto error = check_cut(name_, cut)) return *error;
        return backwards(request, losses, &cut);
    });
}

// By task; 0 for those not asked for. From a device all at once, since each would wait for it.
std::vector<double> TaskGradientEngine::numbers(const std::vector<torch::Tensor>& losses,
                                                TaskSet tasks) const {
    std::vector<double> numbers(losses.size(), 0.0);
    std::vector<torch::Tensor> there;
    for (std::size_t t = 0; t < losses.size(); ++t) {
        if (!tasks.contains(TaskId{static_cast<std::uint32_t>(t)})) continue;
        if (streams_) {
            there.push_back(losses[t].detach().reshape({}).to(torch::kDouble));
        } else {
            numbers[t] = losses[t].item<double>();
        }
    }
    if (there.empty()) return numbers;
    Arrival arrival = streams_->to_host({torch::stack(there)});
    const double* number = arrival.wait().front().const_data_ptr<double>();
    for (std::size_t t = 0; t < losses.size(); ++t) {
        if (tasks.contains(TaskId{static_cast<std::uint32_t>(t)})) numbers[t] = *number++;
    }
    return numbers;
}

std::vector<torch::Tensor> TaskGradientEngine::backward(const Task& task, const torch::Tensor& loss,
                                                        const Representation* cut,
                                                        bool keep_graph) {
    const TaskScope scope(task);
    for (const auto& gate : model_->gates_) gate->begin_backward(&task);
    std::vector<torch::Tensor> owned;
    for (const std::size_t k : owned_[task.id.value]) owned.push_back(tensors_[k].value);
    if (cut != nullptr) owned.push_back(cut->leaf);
    return torch::autograd::grad({loss}, owned, {}, keep_graph, /*create_graph=*/false,
                                 /*allow_unused=*/true);
}

// `gradients` are on the host. A branch this batch did not take has a gradient of zero, not none.
void TaskGradientEngine::place(const Task& task, const std::vector<torch::Tensor>& gradients,
                               TorchRows& rows) {
    const std::vector<std::size_t>& owned = owned_[task.id.value];
    for (std::size_t i = 0; i < owned.size(); ++i) {
        rows.at(task.id, owned[i]) =
            gradients[i].defined() ? gradients[i].contiguous()
                                   : torch::zeros(tensors_[owned[i]].value.sizes(), torch::kFloat);
    }
    if (gradients.size() > owned.size() && gradients.back().defined()) {
        rows.at_output[task.id.value] = gradients.back().contiguous();
    }
}

Result<GradientReport> TaskGradientEngine::backwards(const GradientRequest& request,
                                                     const std::vector<torch::Tensor>& losses,
                                                     const Representation* cut) {
    std::vector<Task>& tasks = model_->tasks();
    GradientReport report;
    report.losses = numbers(losses, request.tasks);
    std::size_t left = 0;
    for (const Task& task : tasks) {
        if (!request.tasks.contains(task.id)) continue;
        const double loss = report.losses[task.id.value];
        if (!std::isfinite(loss)) {
            return fail(ErrorCode::not_finite, "the loss of task " + task.name + " is " +
                                                   std::to_string(loss) +
                                                   "; lower the learning rate, clip gradients, or "
                                                   "look for bad samples in the batch");
        }
        ++left;
    }
    auto rows = std::make_shared<TorchRows>(tasks.size(), tensors_.size());
    if (cut != nullptr) {
        rows->output = cut->output;
        rows->at_output.resize(tasks.size());
    }
    const auto deliver = [&](Task& task, const std::vector<torch::Tensor>& gradients) {
        place(task, gradients, *rows);
        task.log.add_loss(report.losses[task.id.value]);
        if (request.task_done) request.task_done(task.id, *rows);
    };
    // Gradients of the task before, on their way from a device.
    Task* before = nullptr;
    std::optional<Arrival> arrival;
    DeviceStreams::Fork fork(streams_.get());
    for (Task& task : tasks) {
        if (!request.tasks.contains(task.id)) continue;
        if (request.cancelled && request.cancelled->load(std::memory_order_relaxed)) {
            return fail(ErrorCode::cancelled,
                        "the computation was cancelled before the backward "
                        "of task " +
                            task.name);
        }
        const bool last = --left == 0;
        if (!streams_) {
            deliver(task, backward(task, losses[task.id.value], cut, /*keep_graph=*/!last));
            continue;
        }
        // A graph on a device is kept until all that is computed with it is over.
        fork.enter(task.id);
        Arrival sent =
            streams_->to_host(backward(task, losses[task.id.value], cut, /*keep_graph=*/true));
        if (arrival) deliver(*before, arrival->wait());
        before = &task;
        arrival.emplace(std::move(sent));
    }
    if (arrival) deliver(*before, arrival->wait());
    report.gradients = std::move(rows);
    return report;
}

Result<std::shared_ptr<const TrunkGradient>> TaskGradientEngine::trunk_gradient(
    const TaskGradients& of, std::span<const float> combined) {
    const auto* rows = dynamic_cast<const TorchRows*>(&of);
    invariant(rows != nullptr && rows->output.defined(),
              "the trunk's gradient is asked for of gradients that ended at its output");
    using Trunk = std::shared_ptr<const TrunkGradient>;
    return catching("model " + name_ + ", computing the trunk's gradient", [&]() -> Result<Trunk> {
        fix_threads();
        std::optional<DeviceStreams::Scope> scope;
        if (streams_) {
            scope.emplace(*streams_);
            weights_->send();
        }
        auto gradient = std::make_shared<TorchTrunk>(tensors_.size());
        torch::Tensor at_output = torch::zeros(rows->output.sizes(), torch::kFloat);
        invariant(
            combined.empty() || combined.size() == static_cast<std::size_t>(at_output.numel()),
            "a gradient at the trunk's output is as long as the output");
        std::copy(combined.begin(), combined.end(), at_output.data_ptr<float>());
        if (streams_) at_output = streams_->to_device(at_output);
        std::vector<torch::Tensor> trunk;
        for (const std::size_t k : trunk_) trunk.push_back(tensors_[k].value);
        auto found = torch::autograd::grad({rows->output}, trunk, {at_output},
                                           /*retain_graph=*/true,
                                           /*create_graph=*/false, /*allow_unused=*/true);
        if (streams_) found = streams_->to_host(std::move(found)).wait();
        for (std::size_t i = 0; i < trunk.size(); ++i) {
            gradient->rows[trunk_[i]] = found[i].defined()
                                            ? found[i].contiguous()
                                            : torch::zeros(trunk[i].sizes(), torch::kFloat);
        }
        return gradient;
    });
}

}  // namespace detente
