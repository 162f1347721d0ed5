// UW: Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses for scene
// geometry and semantics" (2018), equation 7 with s = log σ²: each task's uncertainty is learnt by
// gradient descent on
//     ½Σ(e^(−sᵢ)·Lᵢ + sᵢ),
// so that a task's weight is ½e^(−sᵢ), and sᵢ moves by −lr·½(1 − e^(−sᵢ)Lᵢ). A step's result has
// the weights from before its update: both are of one backward.
//
// State: s, from 0; kept within ±30, so that weights stay finite.
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Uw final : public Aggregator {
  public:
    explicit Uw(double lr) : lr_(lr) {}
    std::string name() const override { return "uw"; }
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
            const double precision = std::exp(-s);
            objective += (precision * input.losses[i] + s) / 2;
            output.weights.push_back(precision / 2);
            s = std::clamp(s - lr_ * (1 - precision * input.losses[i]) / 2, -30.0, 30.0);
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
    return std::make_unique<const Uw>(lr);
}

}  // namespace

Method uw() {
    return {"uw",
            {{"lr", "learning rate of the log variances (at least 0; default 0.01)", "0.01"}},
            make,
            "Kendall et al. 2018"};
}

}  // namespace detente::methods
