// GradNorm: Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: gradient normalization for
// adaptive loss balancing in deep multitask networks" (2018), equation 2 and algorithm 1: the
// weights learn to make the tasks' gradient norms alike, faster for tasks that lag behind,
//     L = Σ|wᵢ‖gᵢ‖ − Ḡ·rᵢ^α|,  Ḡ = mean wᵢ‖gᵢ‖,  rᵢ = (Lᵢ/Lᵢ(0)) / mean(L/L(0)),
// the target held constant; one step of plain gradient descent on L, then Σw = T again. A step's
// result has the weights from before its update, as in the algorithm.
//
// State: whether there was a step; w, from 1; L(0). Choices: ratios of losses are taken between
// losses of at least 1e-8; a weight that the step would make negative becomes 0, and if all are,
// they start again at 1. With all gradients zero (status all_zero) nothing is learnt.
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/small_matrix.h"

namespace detente::methods {
namespace {

constexpr double kLeastLoss = 1e-8;

class Gradnorm final : public Aggregator {
  public:
    Gradnorm(double alpha, double lr) : alpha_(alpha), lr_(lr) {}
    std::string name() const override { return "gradnorm"; }
    AggregatorNeeds needs() const override { return {.losses = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        AggregatorState state{std::vector<double>(1 + 2 * tasks, 0.0)};
        std::fill_n(state.values.begin() + 1, tasks, 1.0);
        return state;
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        const std::size_t tasks = input.gramian->tasks();
        const std::span<double> w{state.values.data() + 1, tasks};
        const std::span<double> first{state.values.data() + 1 + tasks, tasks};
        if (state.values[0] == 0) {
            state.values[0] = 1;
            std::copy(input.losses.begin(), input.losses.end(), first.begin());
        }
        AggregatorOutput output;
        output.weights.assign(w.begin(), w.end());
        if (all_zero(*input.gramian)) {
            output.status = AggregatorStatus::all_zero;
            return output;
        }
        learn(lengths_of(*input.gramian), input.losses, first, w, output);
        return output;
    }

  private:
    void learn(const std::vector<double>& lengths, std::span<const double> losses,
               std::span<const double> first, std::span<double> w, AggregatorOutput& output) const {
        const std::size_t tasks = w.size();
        const auto count = static_cast<double>(tasks);
        std::vector<double> rates(tasks);
        double mean_rate = 0;
        double mean_norm = 0;
        for (std::size_t i = 0; i < tasks; ++i) {
            rates[i] = std::max(losses[i], kLeastLoss) / std::max(first[i], kLeastLoss);
            mean_rate += rates[i] / count;
            mean_norm += w[i] * lengths[i] / count;
        }
        double objective = 0;
        double sum = 0;
        for (std::size_t i = 0; i < tasks; ++i) {
            const double apart =
                w[i] * lengths[i] - mean_norm * std::pow(rates[i] / mean_rate, alpha_);
            objective += std::abs(apart);
            const double sign = apart > 0 ? 1.0 : (apart < 0 ? -1.0 : 0.0);
            w[i] = std::max(0.0, w[i] - lr_ * sign * lengths[i]);
            sum += w[i];
        }
        output.objective = objective;
        for (double& x : w) x = sum > 0 ? x * count / sum : 1.0;
    }

    double alpha_;
    double lr_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double alpha = settings.real("alpha", 1.5, 0, 100);
    const double lr = settings.real("lr", 0.025, 0, 1e18);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Gradnorm>(alpha, lr);
}

}  // namespace

Method gradnorm() {
    return {"gradnorm",
            {{"alpha", "how strongly lagging tasks are helped, from 0 to 100 (default 1.5)", "1.5"},
             {"lr", "learning rate of the weights (at least 0; default 0.025)", "0.025"}},
            make,
            "Chen et al. 2018"};
}

}  // namespace detente::methods
