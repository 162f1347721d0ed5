// DualProj: Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning" (2017),
// equations 8 to 11, for all tasks alike: the mean gradient projected onto the dual cone of the
// gradients, v = argmin over v ⪰ b of vᵀGv, b = 1/T. The result is the vector nearest to the mean
// that opposes no task. The quadratic program is solved exactly.
//
// The result is unique; with dependent gradients several v give it. With all gradients zero (status
// all_zero) the weights are b. The status is degenerate where only the rounding of G decides which
// sign a dependent row has, and where rows are so nearly opposite that the rounding of their large
// weights leaves kkt_residual above 1e-10. The weights are then of the rows that can still be told
// apart, and the result is no longer than the mean, but for a thousandth.
#include "common/conflict/methods.h"
#include "common/conflict/orthant_qp.h"

namespace detente::methods {
namespace {

class Dualproj final : public Aggregator {
  public:
    std::string name() const override { return "dualproj"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::vector<double> b(g.tasks(), 1.0 / static_cast<double>(g.tasks()));
        OrthantPoint point = least_norm_above(g, b);
        AggregatorOutput output;
        output.kkt_residual = orthant_kkt_residual(g, b, point.v);
        if (!point.settled || !(*output.kkt_residual <= kSolvedTo)) {
            output.status = AggregatorStatus::degenerate;
        }
        if (all_zero(g)) output.status = AggregatorStatus::all_zero;
        output.weights = std::move(point.v);
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) {
    return std::make_unique<const Dualproj>();
}

}  // namespace

Method dualproj() { return {"dualproj", {}, make, "Lopez-Paz and Ranzato 2017"}; }

}  // namespace detente::methods
