// Cholesky with diagonal pivoting of a small symmetric matrix that should be positive semidefinite:
// finds a well-conditioned leading block of full rank and solves with it. Value type, in double.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace detente {

class PivotedCholesky {
  public:
    // Factors `matrix` (n×n, row-major), after scaling it to unit diagonal: rows of very different
    // size count alike. Stops where the largest remaining diagonal is at most `tolerance`; rows
    // with no positive diagonal never enter. Where all rows are well apart they are taken in their
    // order, without a search for pivots.
    PivotedCholesky(const std::vector<double>& matrix, std::size_t n, double tolerance);
    std::size_t size() const { return n_; }
    std::size_t rank() const { return rank_; }
    // Whether all rows were so well apart that no pivots were searched for.
    bool well_apart() const { return well_apart_; }
    // Indices in the order of their pivots: the first rank() are factored.
    const std::vector<std::size_t>& order() const { return order_; }
    // x with M₁₁·x₁ = right₁ on the factored indices, and zero on the others.
    std::vector<double> solve(std::span<const double> right) const;
    // x with M₁·x = 0 for the factored rows and x[k] = 1: the direction in which only the
    // remainder of row k curves. Requires: k is not among the factored.
    std::vector<double> null_direction(std::size_t k) const;

  private:
    double& at(std::size_t i, std::size_t j) { return factor_[i * stride_ + j]; }
    double at(std::size_t i, std::size_t j) const { return factor_[i * stride_ + j]; }
    bool factor_in_order(const std::vector<double>& matrix);
    void factor_by_pivots(const std::vector<double>& matrix, double tolerance);

    std::size_t n_;
    std::size_t stride_;
    std::size_t rank_ = 0;
    bool well_apart_ = false;
    // Of the factored rows, in pivot order, an upper factor (triangular.h). Where there are others:
    // its transpose below the diagonal, and so for those, too.
    std::vector<double> factor_;
    std::vector<double> inverse_;  // of its diagonal
    std::vector<double> scale_;    // 1/√diagonal, 0 where that is not positive
    std::vector<std::size_t> order_;
};

}  // namespace detente
