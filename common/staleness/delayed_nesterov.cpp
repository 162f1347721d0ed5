// Delayed Nesterov: gradients act at once and plainly; momentum is refreshed only every N-th
// arrival, from their mean, so that stale gradients do not whip it up.
//   every arrival: θ −= ε·g/N;  every N-th: m = βm + ḡ, θ −= ε·βm
// Liu, Cheng, Xu, Douillard, Ranzato et al. 2024, "Asynchronous Local-SGD Training for Language
// Modeling", algorithm 3 with c = 0. Wants rule sgd without momentum: it is here.
//
// Block vectors: m, and the sum of the gradients since it was refreshed. state.values: {arrivals
// since then, 1 if the arrival being applied refreshes it, N at this arrival}.
#include "common/staleness/makers.h"

namespace detente {
namespace {

class DelayedNesterov final : public Policy {
  public:
    DelayedNesterov(double beta, std::uint64_t n) : beta_(beta), n_(n) {}
    std::string name() const override { return "delayed_nesterov"; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.corrects = true;
        needs.block_vectors = 2;
        needs.plain_sgd = true;
        return needs;
    }
    PolicyState initial_state() const override {
        PolicyState state;
        state.values = {0, 0, 1};
        return state;
    }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        const auto n = static_cast<double>(n_ > 0 ? n_ : arrived->members);
        state.values[2] = n;
        state.values[0] += 1;
        state.values[1] = state.values[0] >= n ? 1 : 0;
        if (state.values[1] == 1) state.values[0] = 0;
        outcomes.emplace_back(alone(*arrived));
    }
    void correct(const Arrived& /*arrived*/, const PolicyState& state, const BlockVectors& block,
                 std::span<float> gradient) const override {
        const double n = state.values[2];
        const bool refreshes = state.values[1] == 1;
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            float& momentum = block.block_vectors[0][i];
            float& sum = block.block_vectors[1][i];
            double step = gradient[i] / n;
            sum += gradient[i];
            if (refreshes) {
                momentum = static_cast<float>(beta_ * momentum + sum / n);
                sum = 0;
                step += beta_ * momentum;
            }
            gradient[i] = static_cast<float>(step);
        }
    }

  private:
    double beta_;
    std::uint64_t n_;
};

}  // namespace

PolicyEntry delayed_nesterov_policy() {
    return {"delayed_nesterov",
            {{"beta", "momentum", 0.9, 0, 0.9999999},
             {"n", "arrivals between two refreshes of the momentum; 0 = the number of workers",
              std::uint64_t{0}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const DelayedNesterov>(parameters.real("beta"),
                                                               parameters.count("n"));
            }};
}

}  // namespace detente
