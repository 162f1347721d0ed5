// Nash-MTL: Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-task learning
// as a bargaining game" (2022), claim 3.1: the weights are the positive solution of G·α = 1/α, each
// task's gain being inverse to its weight. The paper approximates it by a sequence of convex
// programs; here it is solved. wᵀGw = T always: only the direction is of the gradients' making.
//
// kkt_residual is the worst |αᵢ·(Gα)ᵢ − 1|: 1e-10 or less, but what rounding leaves of it (about
// 1e-15/(1 + cos θ)) where gradients are nearly opposite. Where the paper has no solution, because
// some convex combination of the gradients is zero (status degenerate), the weights are that
// combination, as MGDA has them: no direction improves all tasks. Zero gradients (status
// degenerate) get weight 0, and the others bargain. With all gradients zero (status all_zero) the
// weights are 1/T.
#include "common/conflict/fair_point.h"
#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Nash final : public Aggregator {
  public:
    std::string name() const override { return "nash"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        return fair_weights(*input.gramian, 1);
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Nash>(); }

}  // namespace

AggregatorOutput fair_weights(const Gramian& gramian, double alpha) {
    AggregatorOutput output;
    const std::size_t tasks = gramian.tasks();
    if (all_zero(gramian)) {
        output.weights.assign(tasks, 1.0 / static_cast<double>(tasks));
        output.status = AggregatorStatus::all_zero;
        return output;
    }
    FairPoint point = fair_point(gramian, alpha);
    if (point.exists) output.kkt_residual = point.residual;
    for (std::size_t i = 0; i < tasks; ++i) {
        if (!point.exists || !(gramian.at(i, i) > 0)) output.status = AggregatorStatus::degenerate;
    }
    output.weights = std::move(point.alpha);
    return output;
}

Method nash() { return {"nash", {}, make, "Navon et al. 2022"}; }

}  // namespace detente::methods
