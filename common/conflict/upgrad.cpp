// UPGrad: Quinton and Rey, "Jacobian descent for multi-objective optimization" (2024), section 3
// and proposition 1: each task's gradient is projected onto the dual cone of all of them, and the
// projections are averaged,
//     w = Σᵢ argmin over v ⪰ bᵢeᵢ of vᵀGv,  b = 1/T.
// The result opposes no task, and is linear under scaling of the rows. The T quadratic programs are
// solved exactly; kkt_residual is the worst of theirs.
//
// The result is unique; with dependent gradients several w give it. With all gradients zero (status
// all_zero) the weights are b. Status degenerate as in dualproj.cpp.
#include <algorithm>

#include "common/conflict/methods.h"
#include "common/conflict/orthant_qp.h"

namespace detente::methods {
namespace {

class Upgrad final : public Aggregator {
  public:
    std::string name() const override { return "upgrad"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        AggregatorOutput output;
        output.weights.assign(tasks, 0.0);
        output.kkt_residual = 0;
        std::vector<double> lower(tasks, 0.0);
        // v is linear in its bound: solved for 1, which keeps the residual's meaning.
        const std::vector<OrthantPoint> points = least_norms_above_units(g);
        for (std::size_t i = 0; i < tasks; ++i) {
            const OrthantPoint& point = points[i];
            lower[i] = 1;
            output.kkt_residual =
                std::max(*output.kkt_residual, orthant_kkt_residual(g, lower, point.v));
            if (!point.settled) output.status = AggregatorStatus::degenerate;
            for (std::size_t k = 0; k < tasks; ++k) output.weights[k] += point.v[k];
            lower[i] = 0;
        }
        for (double& w : output.weights) w /= static_cast<double>(tasks);
        if (!(*output.kkt_residual <= kSolvedTo)) output.status = AggregatorStatus::degenerate;
        if (all_zero(g)) output.status = AggregatorStatus::all_zero;
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Upgrad>(); }

}  // namespace

Method upgrad() { return {"upgrad", {}, make, "Quinton and Rey 2024"}; }

}  // namespace detente::methods
