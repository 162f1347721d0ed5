// Policies that average several arrivals into one update while the workers go on:
//   softsync  ⌊members / n⌋ gradients, the rate of each divided by its staleness.
//             Zhang, Gupta, Lian, Liu 2016, "Staleness-aware Async-SGD for Distributed Deep
//             Learning", eq. 5 and 6 (n-softsync: Gupta, Zhang, Wang 2016, "Rudra", section 3).
//   fedbuff   K gradients, each weighted 1/√(1 + τ), the sum divided by K.
//             Nguyen, Malik, Zhan et al. 2022, "Federated Learning with Buffered Asynchronous
//             Aggregation", algorithm 1 and section 5.
//   rennala   B gradients taken AT the current point; all others are rejected.
//             Tyurin, Richtárik 2023, "Optimal Time Complexities of Parallel Stochastic
//             Optimization Methods Under a Fixed Computation Model", method 4 (Rennala SGD).
//
// Weights inside the average act on the gradient, their sum on the learning rate, so that under
// Adam a stale average steps less too: Σwg / Σw with step_scale Σw / count. Under SGD that is Σwg /
// count.
//
// state.workers: the members. state.kept: what waits for the average, with its weight.
#include <algorithm>
#include <cmath>

#include "common/staleness/makers.h"

namespace detente {
namespace {

void apply_kept(PolicyState& state, std::vector<PolicyOutcome>& outcomes, double count) {
    double sum = 0;
    for (const PolicyState::Kept& kept : state.kept) sum += kept.value;
    ApplyThese apply;
    for (const PolicyState::Kept& kept : state.kept) {
        apply.pushes.push_back({kept.subject, static_cast<float>(kept.value / sum)});
    }
    apply.denominator = 1;
    apply.step_scale = static_cast<float>(sum / count);
    state.kept.clear();
    outcomes.emplace_back(std::move(apply));
}

// Where fewer workers are left than an average needs, nothing more may come: what is kept is then
// applied as it is, once the last member has left.
void when_all_left(PolicyState& state, std::vector<PolicyOutcome>& outcomes, double count) {
    if (state.workers.empty() && !state.kept.empty()) apply_kept(state, outcomes, count);
}

class Averaging : public Policy {
  public:
    Scope scope() const override { return Scope::step; }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        if (const auto* arrived = std::get_if<Arrived>(&event)) {
            state.workers[arrived->worker];
            if (bound() && arrived->staleness > *bound()) {
                outcomes.emplace_back(too_stale(*arrived));
                return;
            }
            state.kept.push_back({arrived->subject, arrived->worker, weight(*arrived)});
            if (state.kept.size() >= count(state)) {
                apply_kept(state, outcomes, static_cast<double>(count(state)));
            } else {
                outcomes.emplace_back(BufferThis{arrived->subject, false});
            }
        } else if (const auto* joined = std::get_if<Joined>(&event)) {
            state.workers[joined->worker];
        } else if (const auto* left = std::get_if<Left>(&event)) {
            const auto before = static_cast<double>(count(state));
            state.workers.erase(left->worker);
            if (!state.workers.empty() && !state.kept.empty() &&
                state.kept.size() >= count(state)) {
                apply_kept(state, outcomes, static_cast<double>(state.kept.size()));
            }
            when_all_left(state, outcomes, before);
        }
    }

    std::size_t most_kept(std::size_t workers) const override { return count(members(workers)); }

  protected:
    virtual std::size_t count(const PolicyState& state) const = 0;
    virtual double weight(const Arrived& arrived) const = 0;
};

class SoftSync final : public Averaging {
  public:
    explicit SoftSync(std::uint64_t n) : n_(n) {}
    std::string name() const override { return "softsync"; }

  protected:
    std::size_t count(const PolicyState& state) const override {
        return std::max<std::size_t>(1, state.workers.size() / n_);
    }
    double weight(const Arrived& arrived) const override {
        return 1 / static_cast<double>(std::max<std::uint64_t>(1, arrived.staleness));
    }

  private:
    std::uint64_t n_;
};

class FedBuff final : public Averaging {
  public:
    explicit FedBuff(std::uint64_t k) : k_(k) {}
    std::string name() const override { return "fedbuff"; }

  protected:
    std::size_t count(const PolicyState& /*state*/) const override { return k_; }
    double weight(const Arrived& arrived) const override {
        return 1 / std::sqrt(1 + static_cast<double>(arrived.staleness));
    }

  private:
    std::uint64_t k_;
};

class Rennala final : public Averaging {
  public:
    explicit Rennala(std::uint64_t b) : b_(b) {}
    std::string name() const override { return "rennala"; }
    std::optional<std::uint64_t> bound() const override { return 0; }

  protected:
    std::size_t count(const PolicyState& state) const override {
        return b_ > 0 ? b_ : std::max<std::size_t>(1, state.workers.size());
    }
    double weight(const Arrived& /*arrived*/) const override { return 1; }

  private:
    std::uint64_t b_;
};

}  // namespace

PolicyEntry softsync_policy() {
    return {"softsync",
            {{"n", "an update averages floor(workers / n) gradients", std::uint64_t{1}, 1}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const SoftSync>(parameters.count("n"));
            }};
}

PolicyEntry fedbuff_policy() {
    return {"fedbuff",
            {{"k", "gradients in an update", std::uint64_t{10}, 1, kMostAveraged}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const FedBuff>(parameters.count("k"));
            }};
}

PolicyEntry rennala_policy() {
    return {"rennala",
            {{"b", "gradients in an update, all taken at one point; 0 = the number of workers",
              std::uint64_t{0}, 0, kMostAveraged}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Rennala>(parameters.count("b"));
            }};
}

}  // namespace detente
