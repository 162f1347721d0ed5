// MoCo: Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating gradient bias in
// multi-objective learning: a provably convergent stochastic approach" (2023), algorithm 1: a
// moving average y of each task's gradient tracks the true one, and MGDA's problem is followed by
// projected steps on the averages,
//     yₜ ← yₜ − β(yₜ − gₜ);  w ← Π(w − γ(YYᵀ + ρI)w);  result wᵀY.
// (The algorithm moves x with the w and Y from before its updates; here, as in the authors' code,
// with the new ones. Their code also scales each gradient to its loss; that is not in the paper.)
//
// State: w, from 1/T; the averages, from 0, are with the gradients' holder. With all averages zero
// (status all_zero) nothing but ρ moves w.
#include "common/conflict/methods.h"
#include "common/conflict/simplex_projection.h"

namespace detente::methods {
namespace {

class Moco final : public Aggregator {
  public:
    Moco(double beta, double gamma, double rho) : beta_(beta), gamma_(gamma), rho_(rho) {}
    std::string name() const override { return "moco"; }
    AggregatorNeeds needs() const override { return {.averages = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(tasks, 1.0 / static_cast<double>(tasks))};
    }
    AverageStep average(std::span<const double> /*losses*/, std::size_t tasks) const override {
        return {std::vector<double>(tasks, 1 - beta_), std::vector<double>(tasks, beta_)};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        state.values = projected_step(*input.gramian, state.values, gamma_, rho_);
        AggregatorOutput output;
        output.weights = state.values;
        if (all_zero(*input.gramian)) output.status = AggregatorStatus::all_zero;
        return output;
    }

  private:
    double beta_;
    double gamma_;
    double rho_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double beta = settings.real("beta", 0.5, 0, 1);
    const double gamma = settings.real("gamma", 0.1, 0, 1e18);
    const double rho = settings.real("rho", 0, 0, 1e18);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Moco>(beta, gamma, rho);
}

}  // namespace

Method moco() {
    return {"moco",
            {{"beta", "share of a new gradient in its average, from 0 to 1 (default 0.5)", "0.5"},
             {"gamma", "step size of the weights (at least 0; default 0.1)", "0.1"},
             {"rho", "regularisation towards equal weights (at least 0; default 0)", "0"}},
            make,
            "Fernando et al. 2023"};
}

}  // namespace detente::methods
