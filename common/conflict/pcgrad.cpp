// PCGrad: Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient surgery for multi-task learning"
// (2020), algorithm 1. Each task's gradient gᵢ, in turn for every other task j in random order, has
// its part along the unmodified gⱼ taken away where they conflict; the results are summed:
//     cᵢ = eᵢ;  for j ≠ i:  x = (G·cᵢ)ⱼ,  if x < 0:  cᵢⱼ −= x / Gⱼⱼ;   w = Σᵢ cᵢ.
//
// The order is drawn per task from the random key, or fixed by the parameter `order`. A zero
// gradient is never in conflict. With all gradients zero (status all_zero) the weights are 1.
#include "common/conflict/methods.h"
#include "common/conflict/visiting_order.h"

namespace detente::methods {
namespace {

class Pcgrad final : public Aggregator {
  public:
    explicit Pcgrad(VisitingOrder order) : order_(std::move(order)) {}
    std::string name() const override { return "pcgrad"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        if (const auto good = order_.check(tasks, name()); !good) return good.error();
        AggregatorOutput output;
        output.weights.assign(tasks, 0.0);
        if (all_zero(g)) output.status = AggregatorStatus::all_zero;
        for (std::size_t i = 0; i < tasks; ++i) {
            project(g, i, order_.of(i, tasks, input.random_key), output.weights);
        }
        return output;
    }

  private:
    // Adds cᵢ to `weights`.
    static void project(const Gramian& g, std::size_t i, const std::vector<std::uint32_t>& order,
                        std::vector<double>& weights) {
        std::vector<double> c(g.tasks(), 0.0);
        c[i] = 1;
        for (const std::uint32_t j : order) {
            if (j == i || !(g.at(j, j) > 0)) continue;
            double x = 0;
            for (std::size_t k = 0; k < c.size(); ++k) x += g.at(j, k) * c[k];
            if (x < 0) c[j] -= x / g.at(j, j);
        }
        for (std::size_t k = 0; k < c.size(); ++k) weights[k] += c[k];
    }

    VisitingOrder order_;
};

MadeAggregator make(const AggregatorConfig& config) {
    auto order = VisitingOrder::parse(parameter(config, "order").value_or("drawn"), "pcgrad");
    if (!order) return order.error();
    return std::make_unique<const Pcgrad>(std::move(*order));
}

}  // namespace

Method pcgrad() { return {"pcgrad", {VisitingOrder::explained()}, make, "Yu et al. 2020"}; }

}  // namespace detente::methods
