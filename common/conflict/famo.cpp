// FAMO: Liu, Feng, Stone and Liu, "FAMO: fast adaptive multitask optimization" (2023), algorithm 1:
// all losses are to fall at the same rate. With z = softmax(ξ),
//     wᵢ = c·zᵢ/Lᵢ,  c = 1/Σ(zᵢ/Lᵢ), so that Σw = 1;
//     ξ ← ξ − w_lr·(δ + γξ),  δ = (∂z/∂ξ)ᵀ·(log L(t) − log L(t+1)).
// (The paper takes L(t+1) on the step's own batch after it was applied, one more forward; here it
// is the next step's losses, which come without one. The authors' code gives ξ to Adam.)
//
// State: whether there was a step; ξ, from 0; the last losses. Losses are taken as L + 1e-8, as in
// the authors' code, and negative ones as 0 (status degenerate).
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/softmax.h"

namespace detente::methods {
namespace {

constexpr double kAboveZero = 1e-8;
double positive(double loss) { return std::max(loss, 0.0) + kAboveZero; }

class Famo final : public Aggregator {
  public:
    Famo(double gamma, double w_lr) : gamma_(gamma), w_lr_(w_lr) {}
    std::string name() const override { return "famo"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .losses = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(1 + 2 * tasks, 0.0)};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        const std::size_t tasks = input.losses.size();
        const std::span<double> xi{state.values.data() + 1, tasks};
        const std::span<double> last{state.values.data() + 1 + tasks, tasks};
        if (state.values[0] != 0) learn(last, input.losses, xi);
        state.values[0] = 1;
        std::copy(input.losses.begin(), input.losses.end(), last.begin());
        AggregatorOutput output;
        output.weights = softmax(xi);
        double sum = 0;
        for (std::size_t i = 0; i < tasks; ++i) {
            if (input.losses[i] < 0) output.status = AggregatorStatus::degenerate;
            output.weights[i] /= positive(input.losses[i]);
            sum += output.weights[i];
        }
        for (double& w : output.weights) w /= sum;
        return output;
    }

  private:
    void learn(std::span<const double> last, std::span<const double> now,
               std::span<double> xi) const {
        const std::vector<double> z = softmax(xi);
        std::vector<double> fall(xi.size());
        double mean = 0;
        for (std::size_t i = 0; i < xi.size(); ++i) {
            fall[i] = std::log(positive(last[i])) - std::log(positive(now[i]));
            mean += z[i] * fall[i];
        }
        for (std::size_t i = 0; i < xi.size(); ++i) {
            xi[i] -= w_lr_ * (z[i] * (fall[i] - mean) + gamma_ * xi[i]);
        }
    }

    double gamma_;
    double w_lr_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double gamma = settings.real("gamma", 0.001, 0, 1e6);
    const double w_lr = settings.real("w_lr", 0.025, 0, 1e6);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Famo>(gamma, w_lr);
}

}  // namespace

Method famo() {
    return {"famo",
            {{"gamma", "decay of the logits (at least 0; default 0.001)", "0.001"},
             {"w_lr", "learning rate of the logits (at least 0; default 0.025)", "0.025"}},
            make,
            "Liu et al. 2023"};
}

}  // namespace detente::methods
