// What the engines of builtin models share: tensors in plain vectors, gradients in plain rows.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/engine.h"

namespace detente {

class PlainGradients final : public TaskGradients {
  public:
    // By task and tensor; an empty row: the task does not own the tensor.
    std::vector<std::vector<std::vector<float>>> rows;
    const float* gradient(TaskId task, std::size_t tensor) const override {
        const std::vector<float>& row = rows[task.value][tensor];
        return row.empty() ? nullptr : row.data();
    }
};

class PlainEngine : public Engine {
  public:
    const ModelDescription& description() const override { return description_; }
    std::span<const float> tensor(std::size_t index) const override { return tensors_[index]; }
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> values) override {
        std::memcpy(tensors_[index].data() + offset, values.data(), values.size());
    }
    bool draws_from_shared_generator() const final { return false; }

  protected:
    void add_tensor(const std::string& name, std::vector<std::int64_t> shape, TaskSet owners,
                    std::vector<float> values) {
        description_.tensors.push_back({name, std::move(shape), owners, false});
        tensors_.push_back(std::move(values));
    }
    TaskSet all_tasks() const {
        TaskSet all;
        for (std::uint32_t t = 0; t < description_.tasks.size(); ++t) all.insert(TaskId{t});
        return all;
    }

    ModelDescription description_;
    std::vector<std::vector<float>> tensors_;
};

}  // namespace detente
