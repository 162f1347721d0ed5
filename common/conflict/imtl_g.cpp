// IMTL-G: Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards impartial multi-task learning"
// (2021), section 3.1: weights of sum 1 under which the result has the same projection on every
// task's unit gradient, (Gw)ᵢ/‖gᵢ‖ equal for all i. With independent gradients that is
//     v = G⁻¹·√diag(G),  w = v / Σv;
// weights may be negative.
//
// With dependent gradients (status degenerate) there is no such result but, at most, zero; the
// choice is v = G⁺·√diag(G), the least-squares solution. Where Σv vanishes (status degenerate), or
// all gradients are zero (status all_zero), the weights are 1/T.
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/pivoted_cholesky.h"
#include "common/conflict/small_matrix.h"
#include "common/conflict/symmetric_eigen.h"

namespace detente::methods {
namespace {

class ImtlG final : public Aggregator {
  public:
    std::string name() const override { return "imtl_g"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        AggregatorOutput output;
        output.weights.assign(tasks, 1.0 / static_cast<double>(tasks));
        if (all_zero(g)) {
            output.status = AggregatorStatus::all_zero;
            return output;
        }
        const std::vector<double> lengths = lengths_of(g);
        const PivotedCholesky factor({g.entries().begin(), g.entries().end()}, tasks,
                                     kRankTolerance);
        std::vector<double> v;
        if (factor.rank() == tasks) {
            v = factor.solve(lengths);
        } else {
            v = SymmetricEigen(g).pseudo_solve(lengths);
            output.status = AggregatorStatus::degenerate;
        }
        double sum = 0;
        double size = 0;
        for (const double x : v) {
            sum += x;
            size += std::abs(x);
        }
        if (!(std::abs(sum) > 1e-13 * size)) {
            output.status = AggregatorStatus::degenerate;
            return output;
        }
        for (std::size_t i = 0; i < tasks; ++i) output.weights[i] = v[i] / sum;
        return output;
    }

  private:
    static constexpr double kRankTolerance = 1e-13;
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const ImtlG>(); }

}  // namespace

Method imtl_g() { return {"imtl_g", {}, make, "Liu et al. 2021"}; }

}  // namespace detente::methods
