// What the engine hands out: gradients as tensors of the host.
#pragma once

#include <torch/types.h>

#include <span>
#include <vector>

#include "common/invariant.h"
#include "worker/engine.h"

namespace detente {

// The rows of one computation, [task][tensor]; undefined where the task does not own the tensor, or
// it is of the trunk and the graph was cut.
class TorchRows final : public TaskGradients {
  public:
    TorchRows(std::size_t tasks, std::size_t tensors)
        : rows_(tasks, std::vector<torch::Tensor>(tensors)) {}
    const float* gradient(TaskId task, std::size_t tensor) const override {
        invariant(task.value < rows_.size() && tensor < rows_[task.value].size(),
                  "a gradient is asked for by a task and tensor of the model");
        const torch::Tensor& row = rows_[task.value][tensor];
        return row.defined() ? row.const_data_ptr<float>() : nullptr;
    }
    std::span<const float> representation(TaskId task) const override {
        if (at_output.empty() || !at_output[task.value].defined()) return {};
        const torch::Tensor& row = at_output[task.value];
        return {row.const_data_ptr<float>(), static_cast<std::size_t>(row.numel())};
    }
    torch::Tensor& at(TaskId task, std::size_t tensor) { return rows_[task.value][tensor]; }

    torch::Tensor output;                  // the trunk's, with its graph, where it was cut
    std::vector<torch::Tensor> at_output;  // gradients there, by task

  private:
    std::vector<std::vector<torch::Tensor>> rows_;
};

class TorchTrunk final : public TrunkGradient {
  public:
    explicit TorchTrunk(std::size_t tensors) : rows(tensors) {}
    const float* gradient(std::size_t tensor) const override {
        return rows[tensor].defined() ? rows[tensor].const_data_ptr<float>() : nullptr;
    }
    std::vector<torch::Tensor> rows;  // by tensor
};

}  // namespace detente
