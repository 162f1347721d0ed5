// DWA: Liu, Johns and Davison, "End-to-end multi-task learning with attention" (2019), equation 7:
// tasks whose loss falls more slowly weigh more,
//     w = T·softmax(r/τ),  rᵢ = Lᵢ(t−1) / Lᵢ(t−2),
// r = 1 for the first two steps. (The paper averages losses over an epoch before it takes ratios;
// here a step's losses are one batch's.)
//
// State: number of steps seen, at most 2; the losses of the last step and of the one before.
// Choice: ratios are between losses of at least 1e-8, and at most 1e6.
#include <algorithm>

#include "common/conflict/methods.h"
#include "common/conflict/softmax.h"

namespace detente::methods {
namespace {

constexpr double kLeastLoss = 1e-8;
constexpr double kMostRatio = 1e6;

class Dwa final : public Aggregator {
  public:
    explicit Dwa(double temperature) : temperature_(temperature) {}
    std::string name() const override { return "dwa"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .losses = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(1 + 2 * tasks, 0.0)};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        const std::size_t tasks = input.losses.size();
        const std::span<double> last{state.values.data() + 1, tasks};
        const std::span<double> before{state.values.data() + 1 + tasks, tasks};
        std::vector<double> rates(tasks, 1.0);
        for (std::size_t i = 0; i < tasks && state.values[0] == 2; ++i) {
            rates[i] = std::min(kMostRatio,
                                std::max(last[i], kLeastLoss) / std::max(before[i], kLeastLoss));
        }
        for (double& rate : rates) rate /= temperature_;
        AggregatorOutput output;
        output.weights = softmax(rates);
        for (double& w : output.weights) w *= static_cast<double>(tasks);
        std::copy(last.begin(), last.end(), before.begin());
        std::copy(input.losses.begin(), input.losses.end(), last.begin());
        state.values[0] = std::min(2.0, state.values[0] + 1);
        return output;
    }

  private:
    double temperature_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double temperature = settings.real("temperature", 2, 1e-3, 1e6);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Dwa>(temperature);
}

}  // namespace

Method dwa() {
    return {"dwa",
            {{"temperature", "of the softmax, from 0.001: small is decided (default 2)", "2"}},
            make,
            "Liu et al. 2019"};
}

}  // namespace detente::methods
