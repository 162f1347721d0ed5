// Applies every gradient with the learning rate divided by its staleness: η = η₀ / max(1, τ).
// Zhang, Gupta, Lian, Liu 2016, "Staleness-aware Async-SGD for Distributed Deep Learning", eq. 6
// (η = η₀/τ there, where τ counts from 1). The rate is scaled, not the gradient: under Adam a
// scaled gradient would change almost nothing.
#include <algorithm>

#include "common/staleness/makers.h"

namespace detente {
namespace {

class Inverse final : public Policy {
  public:
    std::string name() const override { return "inverse"; }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        const auto divisor = static_cast<double>(std::max<std::uint64_t>(1, arrived->staleness));
        outcomes.emplace_back(alone(*arrived, 1 / divisor));
    }
};

}  // namespace

PolicyEntry inverse_policy() {
    return {"inverse", {}, [](const Parameters&) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Inverse>();
            }};
}

}  // namespace detente
