// Models small enough to check by hand, and ways to run them.
#pragma once

#include <torch/nn/functional/activation.h>
#include <torch/nn/functional/dropout.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/linear.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "worker/torch/task_gradients.h"

// LibTorch defines a CHECK of its own: Catch comes after it and wins.
#undef CHECK
#include <catch2/catch.hpp>

namespace detente::toy {

inline constexpr std::int64_t kTraining = 64;
inline constexpr std::int64_t kTest = 300;  // no multiple of the engine's batch

// Three tasks on a linear trunk, the third with a private layer. Rows and classes are arithmetic,
// so that no generator is touched.
class ThreeTasks : public Model {
  public:
    explicit ThreeTasks(const ModelOptions& options) : dropout_(options.real("dropout", 0)) {
        trunk_ = register_module("trunk", torch::nn::Linear(6, 8));
        add_task("shape", torch::nn::Linear(8, 3));
        add_task("colour", torch::nn::Linear(8, 2));
        private_ = register_module("private", torch::nn::Linear(8, 4));
        add_task("size");
        set_samples(Split::training, rows(kTraining), classes(kTraining));
        set_samples(Split::test, rows(kTest), classes(kTest));
    }

    std::vector<torch::Tensor> forward(const Batch& batch) override {
        const torch::Tensor shared = torch::tanh(trunk_(drop(batch.input())));
        return each_task([&](std::size_t t) {
            const Task* task = current_task();
            seen_.push_back(task ? task->name : "none");
            if (t == 2) return private_(drop(shared));
            return head(t, drop(shared));
        });
    }

    static torch::Tensor rows(std::int64_t count) {
        return torch::sin(torch::arange(count * 6, torch::kFloat).view({count, 6}) * 1.7);
    }
    static std::vector<torch::Tensor> classes(std::int64_t count) {
        const torch::Tensor k = torch::arange(count, torch::kLong);
        return {k % 3, k % 2, k % 4};
    }
    std::vector<std::string> seen_;  // the current task in each part of the forward

  protected:
    torch::Tensor drop(const torch::Tensor& x) {
        namespace F = torch::nn::functional;
        if (dropout_ == 0) return x;
        return F::dropout(x, F::DropoutFuncOptions().p(dropout_).training(is_training()));
    }

  private:
    double dropout_;
    torch::nn::Linear trunk_{nullptr};
    torch::nn::Linear private_{nullptr};
};

template <class M>
Result<std::unique_ptr<TaskGradientEngine>> make(const EngineOptions& options = {}) {
    return TaskGradientEngine::create("Toy", &make_model<M>, options);
}

inline GradientRequest request(TaskSet tasks = {0b111}, std::uint64_t key = 1) {
    GradientRequest request;
    request.samples.resize(16);
    std::iota(request.samples.begin(), request.samples.end(), 5U);
    request.random_key = key;
    request.tasks = tasks;
    return request;
}

inline std::size_t index_of(const Engine& engine, const std::string& name) {
    const auto& tensors = engine.description().tensors;
    for (std::size_t k = 0; k < tensors.size(); ++k) {
        if (tensors[k].name == name) return k;
    }
    throw std::out_of_range("no tensor " + name);
}

}  // namespace detente::toy
