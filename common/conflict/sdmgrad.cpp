// SDMGrad: Xiao, Ban and Ji, "Direction-oriented multi-objective learning: simple and provable
// stochastic algorithms" (2023), algorithm 1: stochastic projected steps on
// ½‖g_w + λ·g₀‖² over the simplex, g₀ the mean gradient; the two factors of its gradient are taken
// from independent batches, which makes it unbiased:
//     w ← Π(w − β·J₁J₂ᵀ(w + λb)),  b = 1/T;  result (g_w + λg₀)/(1 + λ), of J₁.
// (The paper draws a third batch for the result. The authors' code divides J₁J₂ᵀ by a mean square
// length and takes 20 steps with momentum; this is the paper's one step.) In a job J₁ and J₂ are of
// the two halves of a batch, and the weights combine both halves' gradients: the whole batch's.
//
// State: w, from 1/T; the result has the new w. With all gradients zero (status all_zero) w stays.
#include <algorithm>

#include "common/conflict/methods.h"
#include "common/conflict/simplex_projection.h"
#include "common/conflict/small_matrix.h"

namespace detente::methods {
namespace {

class Sdmgrad final : public Aggregator {
  public:
    Sdmgrad(double lambda, double beta) : lambda_(lambda), beta_(beta) {}
    std::string name() const override { return "sdmgrad"; }
    AggregatorNeeds needs() const override { return {.second_batch = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(tasks, 1.0 / static_cast<double>(tasks))};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        const std::size_t tasks = input.gramian->tasks();
        const double b = 1.0 / static_cast<double>(tasks);
        std::vector<double> towards(tasks);
        for (std::size_t i = 0; i < tasks; ++i) towards[i] = state.values[i] + lambda_ * b;
        std::vector<double> w = times(*input.cross, towards);
        for (std::size_t i = 0; i < tasks; ++i) w[i] = state.values[i] - beta_ * w[i];
        state.values = projected_on_simplex(w);
        AggregatorOutput output;
        for (const double x : state.values) {
            output.weights.push_back((x + lambda_ * b) / (1 + lambda_));
        }
        if (all_zero(*input.gramian)) output.status = AggregatorStatus::all_zero;
        return output;
    }

  private:
    double lambda_;
    double beta_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double lambda = settings.real("lambda", 0.3, 0, 1e6);
    const double beta = settings.real("beta", 0.1, 0, 1e18);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Sdmgrad>(lambda, beta);
}

}  // namespace

Method sdmgrad() {
    return {"sdmgrad",
            {{"lambda", "pull towards the mean gradient (at least 0; default 0.3)", "0.3"},
             {"beta", "step size of the weights (at least 0; default 0.1)", "0.1"}},
            make,
            "Xiao et al. 2023"};
}

}  // namespace detente::methods
