// What stands in front of and behind every method, so that each method's file is its paper and no
// more: checks of the input; a preference vector; CR-MOGM.
//
// Preference: task t's loss counts as pₜ·Lₜ, and so does its gradient: the method sees diag(p)·J
// and the losses p ⊙ L, and its weights are multiplied by p on the way out. No pₜ is 0: a zero
// gradient would be the least of all in MGDA's hull, and make the result 0. (UPGrad and DualProj
// under a preference are then the papers' with b = p / T, as their programs only scale.)
//
// CR-MOGM: Zhou, Zhang, Jiang, Zhong, Gu and Zhu, "On the convergence of stochastic multi-objective
// gradient manipulation and beyond" (2022), algorithm 2, line 5: the weights are averaged over
// steps, w ← a·w₋₁ + (1 − a)·ŵ, a = cr_mogm; the first step's are taken as they are. State: the
// method's, then (if a > 0) whether there was a step, and its weights.
#pragma once

#include <memory>
#include <vector>

#include "common/conflict/aggregator.h"

namespace detente {

struct Composition {
    std::vector<double> preference;  // empty: none; one number per task, all above 0
    double cr_mogm = 0;              // in [0, 1)
};

// The parameters of a composition, for every method's list.
std::vector<ExplainedParameter> composition_parameters();
// bad_job: a value that is none or out of range, cr_mogm behind a method without weights.
Result<std::unique_ptr<const Aggregator>> composed(std::unique_ptr<const Aggregator> method,
                                                   const AggregatorConfig& config);

}  // namespace detente
