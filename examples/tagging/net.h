// The net: a shared encoder of words and two kinds of heads. Sentences of a batch lie one after the
// other in one row of tokens, kGap tokens of padding between them, which is no more than what the
// widest convolution sees: padding each to the longest would make four times as many tokens.
// Padding is zero before every convolution (`real`, [tokens, 1], is 1 at tokens and 0 at padding),
// so that no sentence sees another.
#pragma once

#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <vector>

namespace detente::tagging {

inline constexpr std::int64_t kGap = 4;  // the largest dilation: what one convolution reaches

// Residual convolutions of width 3 over [tokens, width], each as one product of matrices: rows lie
// as they are, where LibTorch's own convolution would turn them over and prepare itself anew for
// every length. A row rolls over the end into padding.
class ConvolutionsImpl : public torch::nn::Module {
  public:
    ConvolutionsImpl(std::int64_t width, std::vector<std::int64_t> dilations)
        : dilations_(std::move(dilations)) {
        for (const std::int64_t dilation : dilations_) {
            layers_.push_back(register_module("dilation" + std::to_string(dilation),
                                              torch::nn::Linear(3 * width, width)));
        }
    }
    torch::Tensor forward(torch::Tensor x, const torch::Tensor& real) {
        for (std::size_t k = 0; k < layers_.size(); ++k) {
            const std::int64_t d = dilations_[k];
            const torch::Tensor seen = torch::cat({x.roll(d, 0), x, x.roll(-d, 0)}, 1);
            x = (x + torch::relu(layers_[k](seen))) * real;
        }
        return x;
    }

  private:
    std::vector<std::int64_t> dilations_;
    std::vector<torch::nn::Linear> layers_;
};
TORCH_MODULE(Convolutions);

// Rows of the embedding table, summed per token, then convolutions: [tokens, features] to
// [tokens, width].
class EncoderImpl : public torch::nn::Module {
  public:
    EncoderImpl(std::int64_t rows, std::int64_t width, double dropout)
        : words_(register_module(
              "words", torch::nn::EmbeddingBag(
                           torch::nn::EmbeddingBagOptions(rows, width).mode(torch::kSum)))),
          layers_(register_module("layers",
                                  Convolutions(width, std::vector<std::int64_t>{1, 2, kGap}))),
          dropout_(register_module("dropout", torch::nn::Dropout(dropout))) {
        const torch::NoGradGuard no_gradients;
        words_->weight.mul_(0.3);  // sums of several rows, and still of size one
    }
    torch::Tensor forward(const torch::Tensor& features, const torch::Tensor& real) {
        return dropout_(layers_(dropout_(words_(features)) * real, real));
    }

  private:
    torch::nn::EmbeddingBag words_;
    Convolutions layers_;
    torch::nn::Dropout dropout_;
};
TORCH_MODULE(Encoder);

// The head that is told the predicate: besides the token it sees the encoded predicate and how far
// away that is, a bit at the predicate itself, and has convolutions of its own, since arguments are
// long. `predicate` says for each token where its sentence's predicate lies in the row; -1: none.
class RoleHeadImpl : public torch::nn::Module {
  public:
    static constexpr std::int64_t kFar = 20;
    static constexpr std::int64_t kDistances = 2 * kFar + 2;  // the last: no predicate

    RoleHeadImpl(std::int64_t encoded, std::int64_t width, std::int64_t classes)
        : token_(register_module("token", torch::nn::Linear(encoded, width))),
          predicate_(register_module("predicate", torch::nn::Linear(encoded, width))),
          distance_(register_module("distance", torch::nn::Embedding(kDistances, width))),
          layers_(register_module("layers",
                                  Convolutions(width, std::vector<std::int64_t>{1, 2, kGap}))),
          roles_(register_module("roles", torch::nn::Linear(width, classes))) {}

    torch::Tensor forward(const torch::Tensor& encoded, const torch::Tensor& predicate,
                          const torch::Tensor& real) {
        const torch::Tensor there = predicate >= 0;
        const torch::Tensor at = predicate.clamp_min(0);
        const auto where = torch::TensorOptions(torch::kLong).device(predicate.device());
        const torch::Tensor away = torch::arange(predicate.size(0), where) - at;
        // The distance 0 is the bit: it has a row of its own, which only the predicate gets.
        const torch::Tensor row =
            torch::where(there, away.clamp(-kFar, kFar) + kFar, kDistances - 1);
        const torch::Tensor x = token_(encoded) + distance_(row) +
                                predicate_(encoded).index_select(0, at) * there.unsqueeze(1);
        return roles_(layers_(torch::relu(x) * real, real));
    }

  private:
    torch::nn::Linear token_;
    torch::nn::Linear predicate_;
    torch::nn::Embedding distance_;
    Convolutions layers_;
    torch::nn::Linear roles_;
};
TORCH_MODULE(RoleHead);

}  // namespace detente::tagging
