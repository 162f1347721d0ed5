// The positive solution of G·α = α^(−1/a) (Nash-MTL is a = 1; FairGrad any a > 0), by damped
// Newton steps on the convex potential whose gradient it is the zero of:
//     ½ αᵀGα + Σ ψ(αᵢ),  ψ′(α) = −α^(−1/a),
// for a > 2 along the solutions of smaller a.
// In double, on the normalised rows, so that rows of very different length count alike.
#pragma once

#include <vector>

#include "common/conflict/gramian.h"

namespace detente {

struct FairPoint {
    // One per task; 0 for zero rows, which no finite α could serve.
    std::vector<double> alpha;
    // Whether there is a solution: there is none if a combination of the (nonzero) rows with
    // weights ⪰ 0 is zero, since then no direction serves all. Then alpha is that combination, with
    // sum 1: the least of the hull of the normalised rows, in the given rows' lengths. (So it
    // is taken to be where lengths lie so far apart that their powers leave double: by 1e15 and
    // more at a = 0.05.)
    bool exists = true;
    // Worst |(Gα)ᵢ·αᵢ^(1/a) − 1| over nonzero rows (but those whose α is as good as 0, below 1e-240
    // in the rows' typical length, and whose gain is positive). Rounding alone leaves about
    // 2e-16·max(1, 1/a)·(|G|α)ᵢ/(Gα)ᵢ, which is much where rows are nearly opposite.
    double residual = 0;
    std::size_t iterations = 0;
};

// Requires: finite, symmetric; a >= 0.05.
FairPoint fair_point(const Gramian& gramian, double a);

}  // namespace detente
