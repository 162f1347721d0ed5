// ConFIG: Liu, Chu and Thuerey, "ConFIG: towards conflict-free training of physics informed neural
// networks" (2025), equations 1 and 2: u is the unit vector along pinv(U)·1, U the rows of J
// normalised, which has the same positive product with every unit gradient; the result is
// (Σᵢ gᵢ·u)·u. The paper takes the pseudo-inverse of the T×d matrix; since pinv(U) = Uᵀ(UUᵀ)⁺, the
// Gramian is enough:
//     v = D·C⁺·1,  C = DGD,  D = diag(1/‖gᵢ‖);  u = vᵀJ/‖vᵀJ‖;  w = v·(Σᵢ gᵢ·vᵀJ) / ‖vᵀJ‖².
//
// With dependent gradients C⁺ is the pseudo-inverse, as the paper's. Zero gradients have no unit
// vector: weight 0, and the others are as without them (status degenerate). Where vᵀJ is zero
// (gradients cancel: status degenerate) the result is zero, all weights 0. With all gradients zero
// (status all_zero) the weights are 0 too.
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/pivoted_cholesky.h"
#include "common/conflict/small_matrix.h"
#include "common/conflict/symmetric_eigen.h"

namespace detente::methods {
namespace {

constexpr double kRankTolerance = 1e-13;

// C⁺·1.
std::vector<double> from_ones(const Gramian& cosines) {
    const std::size_t n = cosines.tasks();
    const std::vector<double> ones(n, 1.0);
    const PivotedCholesky factor({cosines.entries().begin(), cosines.entries().end()}, n,
                                 kRankTolerance);
    if (factor.rank() == n) return factor.solve(ones);
    // Zero rows of C are zero eigenvectors' own: they take no part.
    std::vector<double> right(n, 0.0);
    for (std::size_t i = 0; i < n; ++i) right[i] = cosines.at(i, i) > 0 ? 1.0 : 0.0;
    return SymmetricEigen(cosines).pseudo_solve(right);
}

class Config final : public Aggregator {
  public:
    std::string name() const override { return "config"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        AggregatorOutput output;
        output.weights.assign(tasks, 0.0);
        if (all_zero(g)) {
            output.status = AggregatorStatus::all_zero;
            return output;
        }
        const std::vector<double> lengths = lengths_of(g);
        const Gramian cosines = normalised(g);
        const std::vector<double> unit = from_ones(cosines);  // v = D·unit
        const std::vector<double> products = times(cosines, unit);
        double square = 0;
        double reached = 0;  // ‖C·C⁺·1‖²: how much of 1 is in the range of C
        double gains = 0;
        for (std::size_t i = 0; i < tasks; ++i) {
            square += unit[i] * products[i];
            reached += products[i] * products[i];
            gains += lengths[i] * products[i];
            if (!(lengths[i] > 0)) output.status = AggregatorStatus::degenerate;
        }
        if (!(square > 0) || !(reached > 1e-20 * static_cast<double>(tasks))) {
            output.status = AggregatorStatus::degenerate;
            return output;
        }
        for (std::size_t i = 0; i < tasks; ++i) {
            if (lengths[i] > 0) output.weights[i] = unit[i] / lengths[i] * (gains / square);
        }
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Config>(); }

}  // namespace

Method config() { return {"config", {}, make, "Liu et al. 2025"}; }

}  // namespace detente::methods
