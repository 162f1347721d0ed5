// Ringmaster: applies a gradient iff its delay is below R, and tells a worker whose computation has
// fallen R versions behind to stop it and start again at the new point.
// Maranjyan, Tyurin, Richtárik 2025, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time
// Complexity", algorithms 4 and 5. R = 0 stands for no bound, which is async.
//
// state.workers: {version the worker computes at, 1 while it computes}. state.values: {versions}.
#include <algorithm>

#include "common/staleness/makers.h"

namespace detente {
namespace {

class Ringmaster final : public Policy {
  public:
    explicit Ringmaster(std::uint64_t r) : r_(r) {}
    std::string name() const override { return "ringmaster"; }
    Scope scope() const override { return Scope::step; }
    std::optional<std::uint64_t> bound() const override {
        return r_ > 0 ? std::optional(r_ - 1) : std::nullopt;
    }
    PolicyState initial_state() const override {
        PolicyState state;
        state.values = {0};
        return state;
    }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        if (const auto* pulled = std::get_if<Pulled>(&event)) {
            const auto version = static_cast<double>(pulled->version);
            state.workers[pulled->worker] = {version, 1};
            // After a live change to this policy: the model has versions already.
            state.values[0] = std::max(state.values[0], version);
        } else if (const auto* left = std::get_if<Left>(&event)) {
            state.workers.erase(left->worker);
        } else if (const auto* arrived = std::get_if<Arrived>(&event)) {
            state.workers[arrived->worker] = {0, 0};
            if (r_ > 0 && arrived->staleness >= r_) {
                outcomes.emplace_back(too_stale(*arrived));
                return;
            }
            outcomes.emplace_back(alone(*arrived));
            state.values[0] += 1;
            if (r_ == 0) return;
            for (auto& [id, worker] : state.workers) {
                if (worker[1] == 0 || state.values[0] - worker[0] < static_cast<double>(r_)) {
                    continue;
                }
                worker[1] = 0;  // told once; its next pull starts it anew
                outcomes.emplace_back(CancelWorker{id});
            }
        }
    }

  private:
    std::uint64_t r_;
};

}  // namespace

PolicyEntry ringmaster_policy() {
    return {"ringmaster",
            {{"r", "a delay of r versions or more is cancelled; 0 = never", std::uint64_t{8}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Ringmaster>(parameters.count("r"));
            }};
}

}  // namespace detente
