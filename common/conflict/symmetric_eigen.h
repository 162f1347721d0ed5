// Eigenvalues and vectors of a small symmetric matrix, by Jacobi's rotations: accurate to rounding
// for each vector, at any rank. Value type, in double.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/conflict/gramian.h"

namespace detente {

class SymmetricEigen {
  public:
    // Requires: finite entries.
    explicit SymmetricEigen(const Gramian& matrix);
    // From the largest down.
    const std::vector<double>& values() const { return values_; }
    // Unit vector of values()[k].
    std::span<const double> vector(std::size_t k) const {
        return {vectors_.data() + k * values_.size(), values_.size()};
    }
    // How many values count as not zero: above the largest times 8·T·2⁻⁵².
    std::size_t rank() const { return rank_; }
    // M⁺·right, with the values within the rank inverted.
    std::vector<double> pseudo_solve(std::span<const double> right) const;

  private:
    std::vector<double> values_;
    std::vector<double> vectors_;  // one per row
    std::size_t rank_ = 0;
};

}  // namespace detente
