// Divides each coordinate of the gradient by how far that coordinate moved since the worker was
// handed the weights, measured in usual steps: g / (1 + |w − w_stale| / C), C = η_max·√EMA(step²).
// Barkai, Hakimi, Schuster 2020, "Gap-Aware Mitigation of Gradient Staleness", eq. 6 and
// algorithm 2 (Gap-Aware applied elementwise).
//
// Step = (weights before − after) / η, so that it is in the gradient's units. Block vector: its
// EMA. A coordinate that has never moved has C = 0, and its gradient is left as it is.
// state.values: {η_max}, the largest learning rate seen.
#include <algorithm>
#include <cmath>

#include "common/staleness/makers.h"

namespace detente {
namespace {

class GapAware final : public Policy {
  public:
    explicit GapAware(double decay) : decay_(decay) {}
    std::string name() const override { return "gap_aware"; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.corrects = true;
        needs.stale_weights = true;
        needs.block_vectors = 1;
        needs.step_averages = true;
        return needs;
    }
    PolicyState initial_state() const override {
        PolicyState state;
        state.values = {0};
        return state;
    }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        state.values[0] = std::max(state.values[0], arrived->learning_rate);
        outcomes.emplace_back(alone(*arrived));
    }
    void correct(const Arrived& /*arrived*/, const PolicyState& state, const BlockVectors& block,
                 std::span<float> gradient) const override {
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            const double usual =
                state.values[0] * std::sqrt(static_cast<double>(block.block_vectors[0][i]));
            const double gap = std::abs(static_cast<double>(block.weights[i]) -
                                        static_cast<double>(block.stale[i]));
            if (!(usual > 0) || gap == 0) continue;
            gradient[i] = static_cast<float>(gradient[i] / (1 + gap / usual));
        }
    }
    void applied(double learning_rate, std::span<const float> before,
                 const BlockVectors& block) const override {
        if (!(learning_rate > 0)) return;
        for (std::size_t i = 0; i < before.size(); ++i) {
            const double step =
                (static_cast<double>(before[i]) - static_cast<double>(block.weights[i])) /
                learning_rate;
            float& average = block.block_vectors[0][i];
            average = static_cast<float>(decay_ * average + (1 - decay_) * step * step);
        }
    }

  private:
    double decay_;
};

}  // namespace

PolicyEntry gap_aware_policy() {
    return {"gap_aware",
            {{"decay", "how much of the average squared step an update keeps", 0.9, 0, 0.9999999}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const GapAware>(parameters.real("decay"));
            }};
}

}  // namespace detente
