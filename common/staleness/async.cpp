// Every gradient is applied as it comes, whatever its age: w ← w − η·g.
// Niu et al. 2011, "Hogwild!", algorithm 1; Dean et al. 2012, "Large Scale Distributed Deep
// Networks" (Downpour SGD), section 4.1.
#include "common/staleness/makers.h"

namespace detente {
namespace {

class Async final : public Policy {
  public:
    std::string name() const override { return "async"; }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        outcomes.emplace_back(alone(*arrived));
    }
};

}  // namespace

PolicyEntry async_policy() {
    return {"async", {}, [](const Parameters&) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Async>();
            }};
}

}  // namespace detente
