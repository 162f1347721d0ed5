// ExcessMTL: He, Zhou, Zhang, Zhao, Zhang and Yang, "Robust multi-task learning with excess risks"
// (2024), equation 6 and algorithm 1: tasks further from their own optimum weigh more. The excess
// risk is estimated by second order, with the diagonal of accumulated squares for the Hessian,
//     Eₜ = gₜᵀ·diag(Σ gₜ²)^(−½)·gₜ,  relative to its first value;
//     wₜ ← wₜ·exp(η·Eₜ), then Σw = T.
// The first step only records E. (Eₜ is `excess`, kept by the gradients' holder: task_vectors.h.)
//
// State: per task its first E (0: none yet) and log w, from 0; the result has the new w. A task
// whose E is still 0 (a zero gradient) keeps its weight before normalising (status degenerate).
// With all gradients zero (status all_zero) nothing moves.
#include <algorithm>

#include "common/conflict/methods.h"
#include "common/conflict/softmax.h"

namespace detente::methods {
namespace {

class ExcessMtl final : public Aggregator {
  public:
    explicit ExcessMtl(double eta) : eta_(eta) {}
    std::string name() const override { return "excess_mtl"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .excess = true}; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(2 * tasks, 0.0)};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        const std::size_t tasks = input.excess.size();
        const std::span<double> first{state.values.data(), tasks};
        const std::span<double> log_w{state.values.data() + tasks, tasks};
        AggregatorOutput output;
        bool any = false;
        for (std::size_t i = 0; i < tasks; ++i) {
            if (!(input.excess[i] > 0)) output.status = AggregatorStatus::degenerate;
            any = any || input.excess[i] > 0;
            if (first[i] > 0) {
                log_w[i] += eta_ * (input.excess[i] / first[i]);
            } else {
                first[i] = input.excess[i];
            }
        }
        if (!any) output.status = AggregatorStatus::all_zero;
        // Only differences count; the largest is 0, so that nothing grows without bound.
        const double top = *std::max_element(log_w.begin(), log_w.end());
        for (double& x : log_w) x -= top;
        output.weights = softmax(log_w);
        for (double& w : output.weights) w *= static_cast<double>(tasks);
        return output;
    }

  private:
    double eta_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double eta = settings.real("eta", 0.01, 0, 1e6);
    if (settings.error()) return *settings.error();
    return std::make_unique<const ExcessMtl>(eta);
}

}  // namespace

Method excess_mtl() {
    return {"excess_mtl",
            {{"eta", "step size of the log weights (at least 0; default 0.01)", "0.01"}},
            make,
            "He et al. 2024"};
}

}  // namespace detente::methods
