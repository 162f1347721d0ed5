// Admission by capacity: B gradients make an update, and a worker may start a new one only while
//   min(limit − running, (η_s + v + 1)·B − accepted − running) > 0,
// so that what is started and in no update yet never fills more than η_s + 1 of them. Where updates
// take the oldest first, as the paper's queue of samples does, nothing is then staler than η_s
// versions. Here they take gradients as they arrive: a slow worker's can be overtaken by any number
// that were started after it, and its staleness has no bound; what is bounded is how many there
// are.
// Fu, Gao, Shen et al. 2025, "AReaL: A Large-Scale Asynchronous Reinforcement Learning System for
// Language Reasoning", section 5.1, eq. 3.
//
// state.workers: {1 while it computes, 1 while it is held}. state.kept: gradients of the next
// update.
#include <algorithm>

#include "common/staleness/makers.h"

namespace detente {
namespace {

enum : std::size_t { kRunning, kHeld, kSlots };

class Capacity final : public Policy {
  public:
    Capacity(std::uint64_t eta_s, std::uint64_t b, std::uint64_t limit)
        : eta_s_(static_cast<double>(eta_s)), b_(b), limit_(static_cast<double>(limit)) {}
    std::string name() const override { return "capacity"; }
    Scope scope() const override { return Scope::step; }
    std::size_t most_kept(std::size_t workers) const override { return size(members(workers)); }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        if (const auto* joined = std::get_if<Joined>(&event)) {
            worker_of(joined->worker, state)[kHeld] = 1;
            outcomes.emplace_back(HoldPull{joined->worker});
            release(state, outcomes);
        } else if (const auto* pulled = std::get_if<Pulled>(&event)) {
            worker_of(pulled->worker, state)[kRunning] = 1;
        } else if (const auto* left = std::get_if<Left>(&event)) {
            const auto known = state.workers.find(left->worker);
            if (known == state.workers.end()) return;
            if (known->second[kHeld] != 0) outcomes.emplace_back(ReleasePull{left->worker});
            state.workers.erase(known);
            const bool enough = state.workers.empty() || state.kept.size() >= size(state);
            if (enough && !state.kept.empty()) apply(state, outcomes);
            release(state, outcomes);
        } else if (const auto* arrived = std::get_if<Arrived>(&event)) {
            state.kept.push_back({arrived->subject, arrived->worker, 1});
            if (state.kept.size() >= size(state)) {
                apply(state, outcomes);
            } else {
                outcomes.emplace_back(BufferThis{arrived->subject, false});
            }
            start_again(arrived->worker, state, outcomes);
        } else if (const auto* aborted = std::get_if<Aborted>(&event)) {
            start_again(aborted->worker, state, outcomes);
        }
    }

  private:
    // It would start at once: held unless there is room, in order of their numbers.
    void start_again(WorkerId id, PolicyState& state, std::vector<PolicyOutcome>& outcomes) const {
        std::vector<double>& worker = worker_of(id, state);
        worker[kRunning] = 0;
        worker[kHeld] = 1;
        outcomes.emplace_back(HoldPull{id});
        release(state, outcomes);
    }
    static std::vector<double>& worker_of(WorkerId id, PolicyState& state) {
        std::vector<double>& worker = state.workers[id];
        if (worker.empty()) worker.assign(kSlots, 0.0);
        return worker;
    }
    // By itself the largest for which there is less room than there are workers: of one gradient
    // per worker the gate would never hold any.
    std::size_t size(const PolicyState& state) const {
        const double fair = static_cast<double>(state.workers.size()) / (eta_s_ + 1);
        return b_ > 0 ? b_ : std::max<std::size_t>(1, static_cast<std::size_t>(fair));
    }
    static void apply(PolicyState& state, std::vector<PolicyOutcome>& outcomes) {
        ApplyThese apply;
        for (const PolicyState::Kept& kept : state.kept) apply.pushes.push_back({kept.subject, 1});
        apply.denominator = static_cast<double>(state.kept.size());
        state.kept.clear();
        outcomes.emplace_back(std::move(apply));
    }
    void release(PolicyState& state, std::vector<PolicyOutcome>& outcomes) const {
        double running = 0;
        for (const auto& [id, worker] : state.workers) running += worker[kRunning];
        for (auto& [id, worker] : state.workers) {
            if (worker[kHeld] == 0) continue;
            const double at_once =
                limit_ > 0 ? limit_ - running : static_cast<double>(state.workers.size());
            // (η_s + v + 1)·B − accepted − running, where accepted = v·B + what is kept; written so
            // that it stays right when members, and with them B, change.
            const double fresh = (eta_s_ + 1) * static_cast<double>(size(state)) -
                                 static_cast<double>(state.kept.size()) - running;
            // Nothing runs and nothing may start: an update can no longer come, so one may start.
            const bool stuck = running == 0 && fresh <= 0;
            if (std::min(at_once, fresh) <= 0 && !stuck) continue;
            worker[kHeld] = 0;
            worker[kRunning] = 1;
            running += 1;
            outcomes.emplace_back(ReleasePull{id});
        }
    }

    double eta_s_;
    std::uint64_t b_;
    double limit_;
};

}  // namespace

PolicyEntry capacity_policy() {
    return {
        "capacity",
        {{"eta_s",
          "gradients that are started and in no update yet never fill more than eta_s + 1 of them",
          std::uint64_t{4}},
         {"b", "gradients in an update; 0 = workers / (eta_s + 1), at least 1", std::uint64_t{0}, 0,
          kMostAveraged},
         {"limit", "workers computing at once; 0 = all", std::uint64_t{0}}},
        [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
            return std::make_unique<const Capacity>(
                parameters.count("eta_s"), parameters.count("b"), parameters.count("limit"));
        }};
}

}  // namespace detente
