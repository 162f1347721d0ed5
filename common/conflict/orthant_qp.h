// The cone's quadratic program: minimise vᵀGv over v ⪰ b. With g = bᵀJ, the result vᵀJ is the
// projection of g onto the dual cone of the rows: the vector nearest to g that opposes none of
// them. An active-set method in double (Lawson and Hanson, "Solving least squares problems", 1974,
// chapter 23), on the Gramian alone, with a factor that grows with the support. Where rows are well
// apart it begins at a guess that exchanges many rows at a time.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/conflict/gramian.h"

namespace detente {

struct OrthantPoint {
    std::vector<double> v;  // ⪰ b
    // Whether every sign could be settled. It cannot where rounding of G itself decides: a row that
    // depends on others, and by less than its rounding seems not to.
    bool settled = true;
    std::size_t iterations = 0;  // rows that entered one by one, after the first guess
};

// vᵀGv is no more than bᵀGb, but for a thousandth: a row with which rounding would make the result
// longer stays out.
// vᵀJ is unique; where rows are dependent several v give it, and which comes out is not specified.
// A zero row keeps v = b.
// Requires: all entries finite; G symmetric; lower.size() == tasks.
OrthantPoint least_norm_above(const Gramian& gramian, std::span<const double> lower);

// The same for b = e₁, e₂, … (one for each task), which share what depends on the rows alone.
std::vector<OrthantPoint> least_norms_above_units(const Gramian& gramian);

// Worst violation of v ⪰ b, Gv ⪰ 0, (vᵢ − bᵢ)·(Gv)ᵢ = 0, relative to max|G| (absolute where G is
// zero).
double orthant_kkt_residual(const Gramian& gramian, std::span<const double> lower,
                            std::span<const double> v);

}  // namespace detente
