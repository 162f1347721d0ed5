// The point of least norm in the convex hull of the task gradients, by way of their Gramian alone:
// minimise αᵀGα over the simplex { α ⪰ 0, Σα = 1 }, or with a linear term beside it. An active-set
// method in double: exact up to rounding, in the manner of Wolfe, "Finding the nearest point in a
// polytope" (1976), with factorizations that bear rank-deficient, badly scaled and (by the rounding
// of G) slightly indefinite Gramians. Where rows are well apart it begins at a guess that exchanges
// many rows at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "common/conflict/gramian.h"

namespace detente {

struct SimplexPoint {
    std::vector<double> weights;  // ⪰ 0, sum 1
    // Worst violation of the optimality conditions, relative to max|G|: see below.
    double kkt_residual = 0;
    // Whether no other α has the same norm. The combination αᵀJ is unique in any case.
    bool unique = true;
    std::size_t iterations = 0;  // rows that entered one by one, after the first guess
    // With a linear term h·t: d(αᵀGα) / d(t²), while the support stays as it is.
    double growth = 0;
};

// Tasks with identical gradients (all zero ones too) share their weight equally; apart from that,
// where several α are least, which of them comes out is not specified.
// Requires: at least one task; all entries finite; G symmetric.
SimplexPoint least_norm_on_simplex(const Gramian& gramian);

// Minimises ½αᵀGα + t·hᵀα, for h in the range of G (as Gb is), for one t after the other: each
// begins where the last ended. Requires: as above; t >= 0; the Gramian outlives it.
class SimplexProgram {
  public:
    explicit SimplexProgram(const Gramian& gramian, std::span<const double> h = {});
    ~SimplexProgram();
    SimplexProgram(const SimplexProgram&) = delete;
    SimplexProgram& operator=(const SimplexProgram&) = delete;
    SimplexPoint least(double t);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// Worst violation of α ⪰ 0, Σα = 1, s ⪰ λ1, αᵢ·(sᵢ − λ) = 0 with s = Gα + t·h and λ = αᵀs,
// relative to max|G|·max(1, t) (absolute where G is zero).
double simplex_kkt_residual(const Gramian& gramian, std::span<const double> weights,
                            std::span<const double> h = {}, double t = 0);

}  // namespace detente
