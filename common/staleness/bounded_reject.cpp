// Applies a gradient while its staleness τ is at most τ_max, and rejects it beyond. The bound is
// hard: no update older than τ_max versions ever enters the block. What the worker does about a
// rejection is the job's worker.on_rejection; the advice is to refresh.
#include "common/staleness/makers.h"

namespace detente {
namespace {

class BoundedReject final : public Policy {
  public:
    explicit BoundedReject(std::uint64_t tau_max) : tau_max_(tau_max) {}
    std::string name() const override { return "bounded_reject"; }
    std::optional<std::uint64_t> bound() const override { return tau_max_; }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        if (arrived->staleness > tau_max_) {
            outcomes.emplace_back(too_stale(*arrived));
            return;
        }
        outcomes.emplace_back(alone(*arrived));
    }

  private:
    std::uint64_t tau_max_;
};

}  // namespace

PolicyEntry bounded_reject_policy() {
    return {"bounded_reject",
            {{"tau_max", "largest staleness applied, in versions of the block", std::uint64_t{8}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const BoundedReject>(parameters.count("tau_max"));
            }};
}

}  // namespace detente
