// Stored order: a tensor's elements, its blocks one after the other (Block::offset). It is the
// tensor's own order but under a strided mask, where a task's elements lie apart in the tensor and
// side by side in its blocks. Servers, pushes and checkpoints' slices know stored order only; the
// model and model.safetensors the tensor's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/partition/plan.h"

namespace detente {

class StoredOrder {
  public:
    explicit StoredOrder(const Plan& plan);

    // Whether there is a tensor that is stored otherwise than it lies.
    bool any() const { return !moved_.empty(); }
    bool moves(std::size_t tensor) const {
        return tensor < blocks_.size() && !blocks_[tensor].empty();
    }
    const std::vector<std::size_t>& moved() const { return moved_; }  // ascending

    // All elements of a tensor, from one order to the other. Requires: moves(tensor); both as long
    // as the tensor, and apart.
    void store(std::size_t tensor, const float* own, std::span<float> stored) const;
    void restore(std::size_t tensor, std::span<const float> stored, float* own) const;

  private:
    std::vector<std::vector<Block>> blocks_;  // by tensor; empty: stored as it lies
    std::vector<std::size_t> moved_;
};

}  // namespace detente
