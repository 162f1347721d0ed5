// Bulk synchronous steps: the gradients of all workers are averaged into one update, and every
// worker waits for it. Valiant 1990, "A Bridging Model for Parallel Computation".
// With b backup workers (backup_workers) the first N of N + b gradients make the step, and those
// that come later are rejected. Chen, Monga, Bengio, Jozefowicz 2016, "Revisiting Distributed
// Synchronous SGD", algorithms 3 and 4.
// sync_switch: bsp for the first part of the job, then every gradient as it comes. Li, Mangoubi,
// Xu, Guo 2021, "Sync-Switch: Hybrid Parameter Synchronization for Distributed Deep Learning",
// section 4.
//
// state.workers: the members. state.kept: the gradients of this step. state.values (sync_switch):
// {1 after the switch}.
#include <algorithm>
#include <set>

#include "common/staleness/makers.h"

namespace detente {
namespace {

ApplyThese average_of(PolicyState& state) {
    // In the order of the workers, not of arrival: the sum's bits do not depend on who was first.
    std::sort(state.kept.begin(), state.kept.end(),
              [](const auto& a, const auto& b) { return a.worker < b.worker; });
    ApplyThese apply;
    for (const PolicyState::Kept& kept : state.kept) apply.pushes.push_back({kept.subject, 1});
    apply.denominator = static_cast<double>(state.kept.size());
    state.kept.clear();
    return apply;
}

// One average per step over all members but `spare_workers`; the basis of all three.
class Bsp : public Policy {
  public:
    explicit Bsp(std::uint64_t spare_workers) : spare_workers_(spare_workers) {}
    std::string name() const override { return "bsp"; }
    Scope scope() const override { return Scope::step; }
    std::optional<std::uint64_t> bound() const override { return 0; }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        if (const auto* arrived = std::get_if<Arrived>(&event)) {
            state.workers[arrived->worker];
            // It was computed before the last update: too late for its own step.
            if (arrived->staleness > 0) {
                outcomes.emplace_back(too_stale(*arrived));
                return;
            }
            state.kept.push_back({arrived->subject, arrived->worker, 0});
            outcomes.emplace_back(BufferThis{arrived->subject});
        } else if (const auto* joined = std::get_if<Joined>(&event)) {
            state.workers[joined->worker];
        } else if (const auto* left = std::get_if<Left>(&event)) {
            state.workers.erase(left->worker);
        }
        complete(state, outcomes);
    }

  protected:
    void complete(PolicyState& state, std::vector<PolicyOutcome>& outcomes) const {
        if (state.kept.empty()) return;
        // A member waits for the step or is awaited; one that left may have left a gradient behind.
        const std::size_t members = state.workers.size();
        const std::size_t wanted = members > spare_workers_ ? members - spare_workers_ : 1;
        std::set<WorkerId> present;  // one may have come twice: as it was, and started again
        for (const PolicyState::Kept& kept : state.kept) {
            if (state.workers.contains(kept.worker)) present.insert(kept.worker);
        }
        if (present.size() < wanted && !state.workers.empty()) return;
        outcomes.emplace_back(average_of(state));
    }

  private:
    std::uint64_t spare_workers_;
};

class BackupWorkers final : public Bsp {
  public:
    explicit BackupWorkers(std::uint64_t b) : Bsp(b) {}
    std::string name() const override { return "backup_workers"; }
};

class SyncSwitch final : public Bsp {
  public:
    explicit SyncSwitch(double share) : Bsp(0), share_(share) {}
    std::string name() const override { return "sync_switch"; }
    std::optional<std::uint64_t> bound() const override { return std::nullopt; }
    PolicyState initial_state() const override {
        PolicyState state;
        state.values = {0};
        return state;
    }
    PolicyState resumed(const PolicyState& saved) const override {
        PolicyState state = initial_state();
        if (saved.values.size() == 1) state.values = saved.values;
        return state;
    }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        // The switch falls between two steps: a step that has begun is finished first.
        if (arrived != nullptr && state.kept.empty() && arrived->progress >= share_) {
            state.values[0] = 1;
        }
        if (state.values[0] == 0) return Bsp::on(event, state, outcomes);
        if (arrived != nullptr) outcomes.emplace_back(alone(*arrived));
    }

  private:
    double share_;
};

}  // namespace

PolicyEntry bsp_policy() {
    return {"bsp", {}, [](const Parameters&) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Bsp>(0);
            }};
}

PolicyEntry backup_workers_policy() {
    return {"backup_workers",
            {{"b", "workers a step does not wait for", std::uint64_t{1}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const BackupWorkers>(parameters.count("b"));
            }};
}

PolicyEntry sync_switch_policy() {
    return {"sync_switch",
            {{"p", "share of the job's batches done in bsp, before async", 0.25, 0, 1}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const SyncSwitch>(parameters.real("p"));
            }};
}

}  // namespace detente
