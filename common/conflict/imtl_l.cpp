// IMTL-L: Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards impartial multi-task learning"
// (2021), equation 6: the tasks' losses are brought to one scale by learning sᵢ on
//     Σ(e^sᵢ·Lᵢ − sᵢ),
// whose least has e^sᵢ·Lᵢ = 1; a task's weight is e^sᵢ, and sᵢ moves by −lr·(e^sᵢLᵢ − 1). A step's
// result has the weights from before its update: both are of one backward.
//
// State: s, from 0; kept within ±30, so that weights stay finite.
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class ImtlL final : public Aggregator {
  public:
    explicit ImtlL(double lr) : lr_(lr) {}
    std::string name() const override { return "imtl_l"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .losses = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(tasks, 0.0)};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        AggregatorOutput output;
        double objective = 0;
        for (std::size_t i = 0; i < state.values.size(); ++i) {
            double& s = state.values[i];
            const double scale = std::exp(s);
            objective += scale * input.losses[i] - s;
            output.weights.push_back(scale);
            s = std::clamp(s - lr_ * (scale * input.losses[i] - 1), -30.0, 30.0);
        }
        output.objective = objective;
        return output;
    }

  private:
    double lr_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double lr = settings.real("lr", 0.01, 0, 1e18);
    if (settings.error()) return *settings.error();
    return std::make_unique<const ImtlL>(lr);
}

}  // namespace

Method imtl_l() {
    return {"imtl_l",
            {{"lr", "learning rate of the log scales (at least 0; default 0.01)", "0.01"}},
            make,
            "Liu et al. 2021"};
}

}  // namespace detente::methods
