// Stale synchronous parallel: gradients are applied as they come, but a worker may start clock c
// only if c − (the slowest worker's clock) ≤ s. A clock is the number of gradients a worker has
// finished.
// Ho, Cipar, Cui, Lee, Kim, Gibbons, Gibson, Ganger, Xing 2013, "More Effective Distributed ML via
// a Stale Synchronous Parallel Parameter Server", section 2.
//
// dssp: the bound moves between s_l and s_l + r_max; when the fastest worker has used up s_l, it is
// granted as many further clocks as make its wait for the slowest shortest, foretold from the last
// two arrivals of both.
// Zhao, Zhou, Papadias et al. 2019, "Dynamic Stale Synchronous Parallel Distributed Training for
// Deep Learning", algorithms 1 and 2.
//
// state.workers: {clock, held, arrival before the last in s, last arrival in s, clocks granted}.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/staleness/makers.h"

namespace detente {
namespace {

enum : std::size_t { kClock, kHeld, kBefore, kLast, kGranted, kSlots };

class Ssp : public Policy {
  public:
    explicit Ssp(std::uint64_t s) : s_(static_cast<double>(s)) {}
    std::string name() const override { return "ssp"; }
    Scope scope() const override { return Scope::step; }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        if (const auto* joined = std::get_if<Joined>(&event)) {
            join(joined->worker, state);
        } else if (const auto* left = std::get_if<Left>(&event)) {
            const auto known = state.workers.find(left->worker);
            if (known == state.workers.end()) return;
            if (known->second[kHeld] != 0) outcomes.emplace_back(ReleasePull{left->worker});
            state.workers.erase(known);
            release(state, outcomes);
        } else if (const auto* arrived = std::get_if<Arrived>(&event)) {
            join(arrived->worker, state);
            std::vector<double>& worker = state.workers[arrived->worker];
            worker[kBefore] = worker[kLast];
            worker[kLast] = arrived->at_s;
            outcomes.emplace_back(alone(*arrived));
            finish_clock(arrived->worker, state, outcomes);
        } else if (const auto* aborted = std::get_if<Aborted>(&event)) {
            // It has finished the clock, whatever became of the gradient: the others must not wait
            // for it to do so again.
            join(aborted->worker, state);
            finish_clock(aborted->worker, state, outcomes);
        }
    }

    // A worker that was held begins at the bound: no hold of before is known to the shards. Times
    // of arrivals mean nothing to another process.
    PolicyState resumed(const PolicyState& saved) const override {
        PolicyState state;
        for (const auto& [id, worker] : saved.workers) {
            if (worker.size() != kSlots) return {};
            state.workers[id].assign(kSlots, 0.0);
            state.workers[id][kClock] = std::min(worker[kClock], slowest(saved) + s_);
        }
        return state;
    }

  protected:
    static double slowest(const PolicyState& state) {
        double least = std::numeric_limits<double>::infinity();
        for (const auto& [id, worker] : state.workers) least = std::min(least, worker[kClock]);
        return least;
    }
    // Whether this worker may start the clock it has reached.
    virtual bool may_start(std::vector<double>& worker, const PolicyState& state) const {
        return worker[kClock] - slowest(state) <= s_;
    }
    double bound_on_clocks() const { return s_; }

  private:
    void finish_clock(WorkerId id, PolicyState& state, std::vector<PolicyOutcome>& outcomes) const {
        std::vector<double>& worker = state.workers[id];
        worker[kClock] += 1;
        if (!may_start(worker, state)) {
            worker[kHeld] = 1;
            outcomes.emplace_back(HoldPull{id});
        }
        release(state, outcomes);
    }
    // A newcomer starts where the slowest stands, so that nobody waits for clocks it never missed.
    static void join(WorkerId id, PolicyState& state) {
        if (state.workers.contains(id)) return;
        const double clock = state.workers.empty() ? 0 : slowest(state);
        std::vector<double> worker(kSlots, 0.0);
        worker[kClock] = clock;
        state.workers[id] = std::move(worker);
    }
    void release(PolicyState& state, std::vector<PolicyOutcome>& outcomes) const {
        const double least = slowest(state);
        for (auto& [id, worker] : state.workers) {
            if (worker[kHeld] == 0 || worker[kClock] - least > s_) continue;
            worker[kHeld] = 0;
            outcomes.emplace_back(ReleasePull{id});
        }
    }

    double s_;
};

class Dssp final : public Ssp {
  public:
    Dssp(std::uint64_t s_l, std::uint64_t r_max)
        : Ssp(s_l), r_max_(static_cast<std::uint32_t>(std::min<std::uint64_t>(r_max, 1000))) {}
    std::string name() const override { return "dssp"; }

  protected:
    bool may_start(std::vector<double>& worker, const PolicyState& state) const override {
        if (worker[kClock] - slowest(state) <= bound_on_clocks()) {
            worker[kGranted] = 0;
            return true;
        }
        if (worker[kGranted] >= 1) {  // still within what it was granted
            worker[kGranted] -= 1;
            return true;
        }
        double fastest = 0;
        for (const auto& [id, other] : state.workers) fastest = std::max(fastest, other[kClock]);
        // Only the fastest is granted anything, and not beyond s_l + r_max.
        if (worker[kClock] < fastest) return false;
        const double room = bound_on_clocks() + r_max_ - (worker[kClock] - slowest(state)) + 1;
        if (room < 1) return false;
        const double granted = std::min(room, clocks_to_grant(worker, state));
        if (granted < 1) return false;
        worker[kGranted] = granted - 1;
        return true;
    }

  private:
    // Algorithm 2: the number r in [0, r_max] of further clocks after which the fastest worker's
    // arrival lies closest to one of the slowest worker's next arrivals.
    double clocks_to_grant(const std::vector<double>& fastest, const PolicyState& state) const {
        const double least = slowest(state);
        const auto slow =
            std::find_if(state.workers.begin(), state.workers.end(),
                         [&](const auto& entry) { return entry.second[kClock] == least; });
        const double fast_interval = fastest[kLast] - fastest[kBefore];
        const double slow_interval = slow->second[kLast] - slow->second[kBefore];
        if (!(fast_interval > 0) || !(slow_interval > 0)) return 0;
        double best_gap = std::numeric_limits<double>::infinity();
        double best = 0;
        for (std::uint32_t r = 0; r <= r_max_; ++r) {
            const double reached = fastest[kLast] + r * fast_interval;
            // The slowest's next arrival at or after that moment: until then the fastest waits.
            const double k =
                std::max(1.0, std::ceil((reached - slow->second[kLast]) / slow_interval - 1e-9));
            const double gap = std::abs(slow->second[kLast] + k * slow_interval - reached);
            if (gap >= best_gap) continue;
            best_gap = gap;
            best = r;
        }
        return best;
    }

    std::uint32_t r_max_;
};

}  // namespace

PolicyEntry ssp_policy() {
    return {"ssp",
            {{"s", "clocks a worker may be ahead of the slowest", std::uint64_t{3}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Ssp>(parameters.count("s"));
            }};
}

PolicyEntry dssp_policy() {
    return {"dssp",
            {{"s_l", "clocks a worker may always be ahead of the slowest", std::uint64_t{3}},
             {"r_max", "clocks the fastest may be granted beyond", std::uint64_t{12}}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Dssp>(parameters.count("s_l"),
                                                    parameters.count("r_max"));
            }};
}

}  // namespace detente
