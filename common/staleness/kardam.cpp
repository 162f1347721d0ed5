// Kardam: asynchronous updates that survive f Byzantine workers of 3f + 1. A gradient is applied
// only if it passes two filters, and then with a rate dampened by its staleness.
// Damaskinos, El Mhamdi, Guerraoui, Patra, Taziki 2018, "Asynchronous Byzantine Machine Learning
// (the case of SGD)", section 3. Where we could not compare with the paper's text we follow the
// authors' published code (LPD-EPFL/kardam: Filtering, Dampening); each such choice is marked (*).
//
// Lipschitz filter. K = |g - g_last| / |w - w_last|, where g_last is the gradient applied last and
// w_last the weights it was applied to (*). Accepted iff K is at most the (n - f)/n quantile
// (nearest rank, rounded up) of each worker's latest K, its own included. Ours: all K are of that
// one kind, so that like is compared with like; for the quantile the code takes each worker's
// largest of 25, between two gradients of its own. A worker that has left keeps its K: else the
// last ones to train would be judged by fewer and fewer, and then by nobody. Before anything was
// applied, or where the weights did not move, there is no K, and the filter passes: it protects
// from the moment all workers have one.
//
// Frequency filter. No f workers may have more than f of the last 2f + 1 accepted gradients, this
// one included; that is, all 2f + 1 are of different workers. So at least f + 1 of any 2f + 1 in a
// row are honest, and g_last is never one's own. It counts the members there are now, or the last
// ones would wait for others for ever. As in the paper, a worker much faster than the others is
// slowed down to their pace.
//
// Dampening. The rate times 1/(1 + tau), or e^(-alpha*tau), or 1 (*). Only the rate: see
// ApplyThese.
//
// One gradient per update (the paper's M = 1). f = 0 stands for the most that n allows,
// floor((n - 1)/3), which is also the cap; with three workers or fewer nothing is filtered. A
// rejected worker may compute again (advice refresh); the paper drops the gradient, which
// worker.on_rejection = "drop" does.
//
// Norms are over all blocks of all shards: each block is measured where it lives when the gradient
// is staged, and the lead adds them up in block order. A shard that has not acted on the last
// decisions yet measures against the update before.
//
// Block vectors: g_last, w_last. state.workers: {K, below 0 = none yet; 1 while it is a member}.
// state.values: workers of the accepted gradients, oldest first.
#include <algorithm>
#include <cmath>

#include "common/staleness/makers.h"

namespace detente {
namespace {

enum : std::size_t { kCoefficient, kPresent };
enum class Dampening { inverse, exponential, none };

class Kardam final : public Policy {
  public:
    Kardam(std::uint64_t f, Dampening dampening, double alpha)
        : f_(f), dampening_(dampening), alpha_(alpha) {}
    std::string name() const override { return "kardam"; }
    Scope scope() const override { return Scope::step; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.measures = true;
        needs.block_vectors = 2;
        return needs;
    }
    void on(const PolicyEvent& event, PolicyState& state,
            std::vector<PolicyOutcome>& outcomes) const override {
        if (const auto* joined = std::get_if<Joined>(&event)) {
            worker_of(joined->worker, state)[kPresent] = 1;
        } else if (const auto* left = std::get_if<Left>(&event)) {
            worker_of(left->worker, state)[kPresent] = 0;
        } else if (const auto* arrived = std::get_if<Arrived>(&event)) {
            const bool smooth = passes_lipschitz(*arrived, state);
            if (!smooth || !passes_frequency(arrived->worker, state)) {
                outcomes.emplace_back(too_stale(*arrived));
                return;
            }
            state.values.push_back(arrived->worker.value);
            outcomes.emplace_back(alone(*arrived, dampened(arrived->staleness)));
        }
    }
    // The vectors that coefficients are measured against are in the checkpoint too.
    PolicyState resumed(const PolicyState& saved) const override {
        PolicyState state;
        for (const auto& [id, worker] : saved.workers) {
            if (worker.size() != 2) return {};
            state.workers[id] = {worker[kCoefficient], 0.0};
        }
        state.values = saved.values;
        return state;
    }
    Measured measure(const BlockVectors& block, std::span<const float> gradient) const override {
        Measured sums;
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            const double g = static_cast<double>(gradient[i]) - block.block_vectors[0][i];
            const double w = static_cast<double>(block.weights[i]) - block.block_vectors[1][i];
            sums.gradient_sq += g * g;
            sums.weights_sq += w * w;
        }
        return sums;
    }
    void accepted(const BlockVectors& block, std::span<const float> gradient) const override {
        std::copy(gradient.begin(), gradient.end(), block.block_vectors[0].begin());
        std::copy(block.weights.begin(), block.weights.end(), block.block_vectors[1].begin());
    }

  private:
    static std::vector<double>& worker_of(WorkerId id, PolicyState& state) {
        std::vector<double>& worker = state.workers[id];
        if (worker.empty()) worker = {-1.0, 1.0};
        return worker;
    }
    // Byzantine workers there may be among so many.
    std::size_t tolerated(std::size_t workers) const {
        const std::size_t most = workers == 0 ? 0 : (workers - 1) / 3;
        return f_ == 0 ? most : std::min<std::size_t>(most, f_);
    }
    bool passes_lipschitz(const Arrived& arrived, PolicyState& state) const {
        double& own = worker_of(arrived.worker, state)[kCoefficient];
        if (!(arrived.measured.weights_sq > 0)) return true;
        own = std::sqrt(arrived.measured.gradient_sq / arrived.measured.weights_sq);
        std::vector<double> known;
        for (const auto& [id, worker] : state.workers) {
            if (worker[kCoefficient] >= 0) known.push_back(worker[kCoefficient]);
        }
        std::sort(known.begin(), known.end());
        const std::size_t n = state.workers.size();
        const std::size_t rank = (known.size() * (n - tolerated(n)) + n - 1) / n;
        return own <= known[rank - 1];
    }
    bool passes_frequency(WorkerId worker, PolicyState& state) const {
        const auto present = static_cast<std::size_t>(
            std::count_if(state.workers.begin(), state.workers.end(),
                          [](const auto& one) { return one.second[kPresent] != 0; }));
        const std::size_t window = 2 * tolerated(present);
        std::vector<double>& latest = state.values;
        if (latest.size() > window) {
            latest.erase(latest.begin(), latest.end() - static_cast<std::ptrdiff_t>(window));
        }
        return std::find(latest.begin(), latest.end(), worker.value) == latest.end();
    }
    double dampened(std::uint64_t staleness) const {
        const auto tau = static_cast<double>(staleness);
        if (dampening_ == Dampening::inverse) return 1 / (1 + tau);
        return dampening_ == Dampening::exponential ? std::exp(-alpha_ * tau) : 1;
    }

    std::uint64_t f_;
    Dampening dampening_;
    double alpha_;
};

}  // namespace

PolicyEntry kardam_policy() {
    return {"kardam",
            {{"f", "Byzantine workers; 0 = as many as there may be, a third", std::uint64_t{0}},
             {"dampening",
              "of the rate with staleness",
              std::string("exponential"),
              0,
              0,
              {"exponential", "inverse", "none"}},
             {"alpha", "exponential: the rate is multiplied by e^(-alpha * staleness)", 0.2}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                const std::string& kind = parameters.choice("dampening");
                const Dampening dampening = kind == "inverse"       ? Dampening::inverse
                                            : kind == "exponential" ? Dampening::exponential
                                                                    : Dampening::none;
                return std::make_unique<const Kardam>(parameters.count("f"), dampening,
                                                      parameters.real("alpha"));
            }};
}

}  // namespace detente
