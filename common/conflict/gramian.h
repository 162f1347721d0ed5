// The Gramian G = J·Jᵀ of task gradients, accumulated block by block without ever holding a T×d
// copy, and the combination wᵀJ that follows it.
//
// Bits: products are summed in 16 virtual lanes over tiles of kTileElements, lanes and tiles folded
// in double in a fixed order; so G depends on the blocks' cut only at tile boundaries (blocks are
// cut at multiples of a tile) and is the same for every number of shards and every vector width.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace detente {

// Symmetric T×T, row-major, in double.
class Gramian {
  public:
    explicit Gramian(std::size_t tasks = 0) : tasks_(tasks), entries_(tasks * tasks, 0.0) {}
    std::size_t tasks() const { return tasks_; }
    double at(std::size_t i, std::size_t j) const { return entries_[i * tasks_ + j]; }
    double& at(std::size_t i, std::size_t j) { return entries_[i * tasks_ + j]; }
    std::span<const double> entries() const { return entries_; }

    // Adds the block's part. `rows[i]` is task i's gradient of `elements` floats, any alignment; an
    // empty pointer is a task that does not own the block and contributes zero.
    // Requires: rows.size() == tasks().
    void add_block(std::span<const float* const> rows, std::size_t elements);
    void add(const Gramian& other);

  private:
    std::size_t tasks_ = 0;
    std::vector<double> entries_;
};

// cos(i, j) for each pair; 0 where a row is zero. Same shape as the Gramian.
std::vector<double> cosines_of(const Gramian& gramian);
// Mean over pairs i < j; 0 with fewer than two tasks.
double mean_cosine(const Gramian& gramian);

// out = Σᵢ weights[i]·rows[i], written once (out may be any float buffer, e.g. the push's own).
// Sums in task order with explicit multiply-add: bits do not depend on vector width.
void combine(std::span<const double> weights, std::span<const float* const> rows,
             std::span<float> out);
// ‖x‖² with the Gramian's summation.
double squared_norm(const float* values, std::size_t elements);

}  // namespace detente
