// The Gramian G = J·Jᵀ of task gradients, accumulated block by block without ever holding a T×d
// copy, and the combination wᵀJ that follows it. Each is one pass over memory.
//
// Bits. Element e of a tile of kTileElements adds to virtual lane e mod 16 with one fused
// multiply-add in float; a tile's lanes are folded by a fixed tree in double, and tiles are added
// in order in double. So G is the same for every vector width and every alignment, the same when a
// vector arrives as several blocks cut at multiples of a tile (each added to the same Gramian, in
// order), and exactly symmetric and equivariant: swapping two tasks swaps their rows and columns.
//
// Precision: about 1e-9 relative to ‖gᵢ‖‖gⱼ‖. Range: products are formed in float, so an element
// beyond 1.8e19 makes an infinite entry (aggregators refuse it, naming the task) and elements below
// 1e-19 lose their share.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace detente {

// Blocks are cut at multiples of this many elements, and the Gramian is folded at them.
inline constexpr std::size_t kTileElements = 1024;

// Symmetric T×T, row-major, in double.
class Gramian {
  public:
    explicit Gramian(std::size_t tasks = 0) : tasks_(tasks), entries_(tasks * tasks, 0.0) {}
    std::size_t tasks() const { return tasks_; }
    double at(std::size_t i, std::size_t j) const { return entries_[i * tasks_ + j]; }
    double& at(std::size_t i, std::size_t j) { return entries_[i * tasks_ + j]; }
    std::span<const double> entries() const { return entries_; }

    // Adds the block's part. `rows[i]` is task i's gradient of `elements` floats, any alignment; an
    // empty pointer is a task that does not own the block and contributes zero: exactly what a row
    // of zeros contributes.
    // Requires: rows.size() == tasks().
    void add_block(std::span<const float* const> rows, std::size_t elements);
    // Entry by entry. The order of such additions is part of the bits: add in block order.
    // Requires: other.tasks() == tasks().
    void add(const Gramian& other);

  private:
    std::size_t tasks_ = 0;
    std::vector<double> entries_;
};

// cos(i, j) for each pair; 0 where a row is zero. Same shape as the Gramian, clamped to [-1, 1].
std::vector<double> cosines_of(const Gramian& gramian);

// out = Σᵢ weights[i]·rows[i], written once (out may be any float buffer of any alignment, e.g. the
// push's own, or exactly one of the rows; it may not overlap a row otherwise). Weights are rounded
// to float; the first row that counts is multiplied, each later one is added in task order by one
// fused multiply-add: bits do not depend on vector width, alignment or cut. A row whose pointer is
// empty or whose weight is zero as a float is left out, NaN and all: the result is what a row of
// zeros would give, except that a lone row of weight one passes through unaltered (its negative
// zeros too). With no row left, out is zeros. Requires: weights.size() == rows.size(); each row has
// out.size() elements.
void combine(std::span<const double> weights, std::span<const float* const> rows,
             std::span<float> out);
// ‖x‖² with the Gramian's summation: the bits of a 1×1 Gramian.
double squared_norm(const float* values, std::size_t elements);

}  // namespace detente
