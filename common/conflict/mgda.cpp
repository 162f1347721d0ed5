// MGDA: Désidéri, "Multiple-gradient descent algorithm for multiobjective optimization" (2012),
// section 2; for deep networks Sener and Koltun, "Multi-task learning as multi-objective
// optimization" (2018), equation 3: w = argmin over the simplex of wᵀGw. The result is the shortest
// vector in the convex hull of the gradients and opposes none of them. Sener and Koltun iterate
// (Frank-Wolfe); here the quadratic program is solved exactly.
//
// Where several w give the shortest vector (status degenerate; so it is where rounding keeps
// kkt_residual above 1e-10), identical gradients share their weight equally. With all gradients
// zero (status all_zero) this is 1/T each. One zero gradient among others takes all the weight: the
// shortest vector is zero.
#include "common/conflict/methods.h"
#include "common/conflict/simplex_qp.h"

namespace detente::methods {
namespace {

class Mgda final : public Aggregator {
  public:
    std::string name() const override { return "mgda"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        AggregatorOutput output;
        SimplexPoint point = least_norm_on_simplex(*input.gramian);
        output.weights = std::move(point.weights);
        output.kkt_residual = point.kkt_residual;
        if (all_zero(*input.gramian)) {
            output.status = AggregatorStatus::all_zero;
        } else if (!point.unique || !(point.kkt_residual <= kSolvedTo)) {
            output.status = AggregatorStatus::degenerate;
        }
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Mgda>(); }

}  // namespace

Method mgda() { return {"mgda", {}, make, "Désidéri 2012; Sener and Koltun 2018"}; }

}  // namespace detente::methods
