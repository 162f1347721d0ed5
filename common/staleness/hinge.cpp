// Leaves the learning rate alone up to staleness b, and divides it by a(τ − b) + 1 beyond.
// Xie, Koyejo, Gupta 2019, "Asynchronous Federated Optimization" (FedAsync), section 5.2, "Hinge".
#include "common/staleness/makers.h"

namespace detente {
namespace {

class Hinge final : public Policy {
  public:
    Hinge(double a, std::uint64_t b) : a_(a), b_(b) {}
    std::string name() const override { return "hinge"; }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        double scale = 1;
        if (arrived->staleness > b_) {
            scale = 1 / (a_ * static_cast<double>(arrived->staleness - b_) + 1);
        }
        outcomes.emplace_back(alone(*arrived, scale));
    }

  private:
    double a_;
    std::uint64_t b_;
};

}  // namespace

PolicyEntry hinge_policy() {
    return {"hinge",
            {{"a", "steepness: past b the rate is divided by a(staleness - b) + 1", 10.0},
             {"b", "largest staleness at the full rate, in versions", std::uint64_t{4}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Hinge>(parameters.real("a"), parameters.count("b"));
            }};
}

}  // namespace detente
