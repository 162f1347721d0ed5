// The half of a staleness method that runs in the worker (dana_slim, easgd). It stands in the same
// file as its policy, is const and pure, and works elementwise on the vectors the worker keeps for
// it. It runs where gradients are computed: the worker's compute thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace detente {

class WorkerHalf {
  public:
    virtual ~WorkerHalf() = default;
    // Vectors of each trainable block's length that the worker keeps; all zero at first.
    virtual std::uint32_t vectors() const = 0;

    struct Place {
        std::uint64_t computed = 0;  // gradients this worker has computed before
        std::uint32_t workers = 1;   // of the job
        double learning_rate = 0;    // of the block's rule, without schedule
        std::span<const float> pulled;
        std::vector<std::span<float>> vectors;
    };
    // Rewrites the weights just pulled into those the gradient is computed at.
    virtual void before_compute(const Place& /*place*/, std::span<float> /*weights*/) const {}
    // Rewrites the combined gradient into what is pushed.
    virtual void before_push(const Place& /*place*/, std::span<float> /*gradient*/) const {}
};

}  // namespace detente
