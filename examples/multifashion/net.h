// The net of MultiFashion, shared by the model library and the plain loop: a small LeNet trunk and
// one linear layer per task, 22,350 parameters.
#pragma once

#include <torch/nn/functional/activation.h>
#include <torch/nn/functional/pooling.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <span>

#include "examples/multifashion/dataset.h"

namespace detente::multifashion {

class TrunkImpl : public torch::nn::Module {
  public:
    static constexpr int kFeatures = 50;

    TrunkImpl()
        : conv1_(register_module("conv1", torch::nn::Conv2d(1, 10, 5))),
          conv2_(register_module("conv2", torch::nn::Conv2d(10, 20, 5))),
          fc_(register_module("fc", torch::nn::Linear(320, kFeatures))) {}

    torch::Tensor forward(const torch::Tensor& pictures) {
        namespace F = torch::nn::functional;
        torch::Tensor x = torch::relu(F::max_pool2d(conv1_(pictures), F::MaxPool2dFuncOptions(2)));
        x = torch::relu(F::max_pool2d(conv2_(x), F::MaxPool2dFuncOptions(2)));
        return torch::relu(fc_(x.flatten(1)));
    }

  private:
    torch::nn::Conv2d conv1_;
    torch::nn::Conv2d conv2_;
    torch::nn::Linear fc_;
};
TORCH_MODULE(Trunk);

// Pictures [N, 1, 28, 28] of the given samples.
inline torch::Tensor pictures_of(const Pictures& pictures, std::span<const std::uint32_t> samples) {
    const auto count = static_cast<std::int64_t>(samples.size());
    torch::Tensor batch = torch::empty({count, 1, kItemSide, kItemSide});
    float* to = batch.data_ptr<float>();
    for (const std::uint32_t sample : samples) {
        pictures.compose(sample, to);
        to += kPicturePixels;
    }
    return batch;
}

// Classes [N] of the item a task is to tell.
inline torch::Tensor labels_of(const Pictures& pictures, std::span<const std::uint32_t> samples,
                               int task) {
    torch::Tensor labels = torch::empty({static_cast<std::int64_t>(samples.size())}, torch::kLong);
    std::int64_t* to = labels.data_ptr<std::int64_t>();
    for (const std::uint32_t sample : samples) *to++ = pictures.label(sample, task);
    return labels;
}

}  // namespace detente::multifashion
