// Delay compensation: adds a cheap second-order term for what the weights moved since the gradient
// was computed, g + λ·g⊙g⊙(w − w_bak), where w_bak is what the worker was handed.
// Zheng, Meng, Wang, Chen, Yu, Ma, Liu 2017, "Asynchronous Stochastic Gradient Descent with Delay
// Compensation", algorithm 2 and eq. 10 (variant c, constant λ), section 6 (variant a:
// λ_t = λ₀ / √(MeanSquare(t) + 1e−7), MeanSquare(t) = m·MeanSquare(t−1) + (1 − m)·g²).
//
// Block vectors: variant a keeps MeanSquare. With staleness 0 the gradient is left as it is.
#include <cmath>

#include "common/staleness/delay_compensation.h"
#include "common/staleness/makers.h"

namespace detente {
namespace {

class DelayCompensation final : public Policy {
  public:
    DelayCompensation(bool adaptive, double lambda, double lambda_0, double m)
        : adaptive_(adaptive), lambda_(lambda), lambda_0_(lambda_0), m_(m) {}
    std::string name() const override { return "dc_asgd"; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.corrects = true;
        needs.stale_weights = true;
        needs.block_vectors = adaptive_ ? 1 : 0;
        return needs;
    }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        outcomes.emplace_back(alone(*arrived));
    }
    void correct(const Arrived& /*arrived*/, const PolicyState& /*state*/,
                 const BlockVectors& block, std::span<float> gradient) const override {
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            const double g = gradient[i];
            double lambda = lambda_;
            if (adaptive_) {
                float& mean_square = block.block_vectors[0][i];
                mean_square = static_cast<float>(m_ * mean_square + (1 - m_) * g * g);
                lambda = lambda_0_ / std::sqrt(static_cast<double>(mean_square) + 1e-7);
            }
            gradient[i] = delay_compensated(gradient[i], lambda, block.weights[i], block.stale[i]);
        }
    }

  private:
    bool adaptive_;
    double lambda_;
    double lambda_0_;
    double m_;
};

}  // namespace

PolicyEntry dc_asgd_policy() {
    return {"dc_asgd",
            {{"variant", "c: constant lambda, a: adaptive", std::string("c"), 0, 0, {"c", "a"}},
             {"lambda", "c: weight of the compensation", 0.04},
             {"lambda_0", "a: weight before it is divided by the root mean square", 2.0},
             {"m", "a: how much of the mean square an update keeps", 0.95, 0, 1}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const DelayCompensation>(
                    parameters.choice("variant") == "a", parameters.real("lambda"),
                    parameters.real("lambda_0"), parameters.real("m"));
            }};
}

}  // namespace detente
