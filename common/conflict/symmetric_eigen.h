// Eigenvalues and vectors of a small symmetric matrix, by Jacobi's rotations: accurate to rounding
// for each vector, at any rank. Of a Gramian of independent rows also the smallest values are, to a
// few units of their own last place, however far apart the rows' lengths are (Demmel and Veselić,
// "Jacobi's method is more accurate than QR", 1992). Value type, in double.
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
    // How many values count as not zero: above the largest times 8·T·2⁻⁵², or one for each row that
    // is not zero, if those rows are independent once they are unit vectors.
    std::size_t rank() const { return rank_; }
    // Whether there are more than rank(): some rows depend on each other, and others are so short
    // that their values cannot be told from the rounding of the long ones'.
    bool cut() const { return cut_; }
    // M⁺·right, with the values within the rank inverted.
    std::vector<double> pseudo_solve(std::span<const double> right) const;

  private:
    void keep_short_rows(const Gramian& matrix);

    std::vector<double> values_;
    std::vector<double> vectors_;  // one per row
    std::size_t rank_ = 0;
    bool cut_ = false;
};

}  // namespace detente
