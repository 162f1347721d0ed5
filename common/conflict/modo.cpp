// MoDo: Chen, Fernando, Ying and Chen, "Three-way trade-off in multi-objective learning:
// optimization, generalization and conflict-avoidance" (2023), algorithm 1: MGDA's problem by
// stochastic projected steps, with its two factors from independent batches (double sampling):
//     w ← Π(w − γ·(J₁J₂ᵀ + ρI)·w);  result wᵀJ₁.
// (ρ is 0 in the paper's algorithm and positive in the authors' code; their result is of a third
// batch.) In a job J₁ and J₂ are of the two halves of a batch, and the weights combine both halves'
// gradients: the whole batch's.
//
// State: w, from 1/T; the result has the new w. With all gradients zero (status all_zero) nothing
// but ρ moves w.
#include "common/conflict/methods.h"
#include "common/conflict/simplex_projection.h"

namespace detente::methods {
namespace {

class Modo final : public Aggregator {
  public:
    Modo(double gamma, double rho) : gamma_(gamma), rho_(rho) {}
    std::string name() const override { return "modo"; }
    AggregatorNeeds needs() const override { return {.second_batch = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(tasks, 1.0 / static_cast<double>(tasks))};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        state.values = projected_step(*input.cross, state.values, gamma_, rho_);
        AggregatorOutput output;
        output.weights = state.values;
        if (all_zero(*input.gramian)) output.status = AggregatorStatus::all_zero;
        return output;
    }

  private:
    double gamma_;
    double rho_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double gamma = settings.real("gamma", 0.1, 0, 1e18);
    const double rho = settings.real("rho", 0, 0, 1e18);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Modo>(gamma, rho);
}

}  // namespace

Method modo() {
    return {"modo",
            {{"gamma", "step size of the weights (at least 0; default 0.1)", "0.1"},
             {"rho", "regularisation towards equal weights (at least 0; default 0)", "0"}},
            make,
            "Chen et al. 2023"};
}

}  // namespace detente::methods
