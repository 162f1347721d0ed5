// DB-MTL: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu and Kwok, "Dual-balancing for multi-task learning"
// (2024), algorithm 1: losses are balanced by their logarithm, gradients by their norm. An average
// of each task's ∇log(Lₜ + ε),
//     ĝₜ ← β·ĝₜ + (1−β)·gₜ/(Lₜ + ε),  from 0,
// is scaled to the largest norm among them, and they are added: weights max‖ĝ‖/‖ĝₜ‖ on the
// averages.
//
// ε = 1e-8, and negative losses count as 0. A zero average gets weight 1 (status degenerate; as it
// is zero it adds nothing). With all averages zero (status all_zero) the weights are 1.
#include <algorithm>

#include "common/conflict/methods.h"
#include "common/conflict/small_matrix.h"

namespace detente::methods {
namespace {

constexpr double kAboveZero = 1e-8;

class DbMtl final : public Aggregator {
  public:
    explicit DbMtl(double beta) : beta_(beta) {}
    std::string name() const override { return "db_mtl"; }
    AggregatorNeeds needs() const override { return {.losses = true, .averages = true}; }
    AverageStep average(std::span<const double> losses, std::size_t tasks) const override {
        AverageStep step{std::vector<double>(tasks, beta_), {}};
        for (const double loss : losses) {
            step.add.push_back((1 - beta_) / (std::max(loss, 0.0) + kAboveZero));
        }
        return step;
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        AggregatorOutput output;
        if (all_zero(*input.gramian)) {
            output.weights.assign(input.gramian->tasks(), 1.0);
            output.status = AggregatorStatus::all_zero;
            return output;
        }
        const std::vector<double> lengths = lengths_of(*input.gramian);
        const double longest = *std::max_element(lengths.begin(), lengths.end());
        for (const double length : lengths) {
            if (!(length > 0)) output.status = AggregatorStatus::degenerate;
            output.weights.push_back(length > 0 ? longest / length : 1.0);
        }
        return output;
    }

  private:
    double beta_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double beta = settings.real("beta", 0.9, 0, 0.999999999);
    if (settings.error()) return *settings.error();
    return std::make_unique<const DbMtl>(beta);
}

}  // namespace

Method db_mtl() {
    return {"db_mtl",
            {{"beta", "share an average keeps at a step, from 0 to below 1 (default 0.9)", "0.9"}},
            make,
            "Lin et al. 2024"};
}

}  // namespace detente::methods
