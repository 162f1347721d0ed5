// The learning rate shrinks with the number of updates t and with the delay: 1 / (L + c√(t + τ)).
// Sra, Yu, Li, Smola 2016, "AdaDelay: Delay Adaptive Distributed Stochastic Optimization", eq. 2.4
// and 2.5. L = 0 takes 1/η for L, so that the rate of the job is the one at t = 0.
#include <cmath>

#include "common/staleness/makers.h"

namespace detente {
namespace {

class AdaDelay final : public Policy {
  public:
    AdaDelay(double c, double smoothness) : c_(c), smoothness_(smoothness) {}
    std::string name() const override { return "ada_delay"; }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        const double root = std::sqrt(static_cast<double>(arrived->updates + arrived->staleness));
        double scale = 1;
        if (arrived->learning_rate > 0) {
            const double base = smoothness_ > 0 ? smoothness_ : 1 / arrived->learning_rate;
            scale = 1 / ((base + c_ * root) * arrived->learning_rate);
        }
        outcomes.emplace_back(alone(*arrived, scale));
    }

  private:
    double c_;
    double smoothness_;
};

}  // namespace

PolicyEntry ada_delay_policy() {
    return {"ada_delay",
            {{"c", "weight of the root: the rate is 1 / (L + c sqrt(updates + staleness))", 1.0},
             {"L", "smoothness; 0 takes 1 / learning_rate", 0.0}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const AdaDelay>(parameters.real("c"), parameters.real("L"));
            }};
}

}  // namespace detente
