// Scales the learning rate by (1 + τ)^−a.
// Xie, Koyejo, Gupta 2019, "Asynchronous Federated Optimization" (FedAsync), section 5.2, s_a(t−τ)
// "Polynomial". There it weighs a mean of models; here, gradients are pushed, it multiplies the
// rate.
#include <cmath>

#include "common/staleness/makers.h"

namespace detente {
namespace {

class Polynomial final : public Policy {
  public:
    explicit Polynomial(double a) : a_(a) {}
    std::string name() const override { return "polynomial"; }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        const double scale = std::pow(1 + static_cast<double>(arrived->staleness), -a_);
        outcomes.emplace_back(alone(*arrived, scale));
    }

  private:
    double a_;
};

}  // namespace

PolicyEntry polynomial_policy() {
    return {"polynomial",
            {{"a", "the rate is multiplied by (1 + staleness)^-a", 0.5}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Polynomial>(parameters.real("a"));
            }};
}

}  // namespace detente
