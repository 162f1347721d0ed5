// GradVac: Wang, Tsvetkov, Firat and Cao, "Gradient vaccine: investigating and improving multi-task
// optimization in massively multilingual models" (2021), algorithm 1. As PCGrad, but towards a
// target cosine φ̂ᵢⱼ, an average of those seen: for each task i and every other j in random order,
// with gᵢ as modified so far and gⱼ as it came,
//     φ = cos(gᵢ, gⱼ);  if φ < φ̂ᵢⱼ:  gᵢ += ‖gᵢ‖·(φ̂√(1−φ²) − φ√(1−φ̂²)) / (‖gⱼ‖√(1−φ̂²))·gⱼ;
//     φ̂ᵢⱼ ← (1−β)·φ̂ᵢⱼ + β·φ.
// The results are summed. (Equation 4 keeps φ̂ for every pair met, in conflict or not.) Under scope
// `layer` each layer has targets of its own, as the paper has them.
//
// State: φ̂, T×T, from 0. Choices: a pair with a zero gradient is passed over; φ̂ is taken as at most
// 1 − 1e-6 (at 1 the formula divides by zero). With all gradients zero (status all_zero) the
// weights are 1.
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/small_matrix.h"
#include "common/conflict/visiting_order.h"

namespace detente::methods {
namespace {

constexpr double kMostTarget = 1 - 1e-6;

class Gradvac final : public Aggregator {
  public:
    Gradvac(double beta, VisitingOrder order) : beta_(beta), order_(std::move(order)) {}
    std::string name() const override { return "gradvac"; }
    AggregatorState initial_state(std::size_t tasks) const override {
        return {std::vector<double>(tasks * tasks, 0.0)};
    }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& state) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        if (const auto good = order_.check(tasks, name()); !good) return good.error();
        AggregatorOutput output;
        output.weights.assign(tasks, 0.0);
        if (all_zero(g)) output.status = AggregatorStatus::all_zero;
        for (std::size_t i = 0; i < tasks; ++i) {
            Moving moving(g, i);
            for (const std::uint32_t j : order_.of(i, tasks, input.random_key)) {
                if (j != i) meet(g, j, moving, state.values[i * tasks + j]);
            }
            for (std::size_t k = 0; k < tasks; ++k) output.weights[k] += moving.c[k];
        }
        return output;
    }

  private:
    // A gradient cᵀJ on its way, with its products with all the others, G·c.
    struct Moving {
        Moving(const Gramian& g, std::size_t i) : c(g.tasks(), 0.0), products(g.tasks()) {
            c[i] = 1;
            for (std::size_t k = 0; k < products.size(); ++k) products[k] = g.at(k, i);
        }
        double length() const {
            double square = 0;
            for (std::size_t k = 0; k < c.size(); ++k) square += c[k] * products[k];
            return std::sqrt(std::max(0.0, square));
        }
        void add(const Gramian& g, std::size_t j, double factor) {
            c[j] += factor;
            for (std::size_t k = 0; k < products.size(); ++k) products[k] += factor * g.at(j, k);
        }
        std::vector<double> c;
        std::vector<double> products;
    };

    void meet(const Gramian& g, std::size_t j, Moving& moving, double& target) const {
        const double own = moving.length();
        const double other = std::sqrt(std::max(0.0, g.at(j, j)));
        if (!(own > 0) || !(other > 0)) return;
        const double phi = std::clamp(moving.products[j] / own / other, -1.0, 1.0);
        if (phi < target) {
            const double wanted = std::clamp(target, -kMostTarget, kMostTarget);
            const double side = std::sqrt(1 - wanted * wanted);
            moving.add(g, j, own / other * (wanted * std::sqrt(1 - phi * phi) - phi * side) / side);
        }
        target = (1 - beta_) * target + beta_ * phi;
    }

    double beta_;
    VisitingOrder order_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double beta = settings.real("beta", 0.01, 0, 1);
    if (settings.error()) return *settings.error();
    auto order = VisitingOrder::parse(parameter(config, "order").value_or("drawn"), "gradvac");
    if (!order) return order.error();
    return std::make_unique<const Gradvac>(beta, std::move(*order));
}

}  // namespace

Method gradvac() {
    return {"gradvac",
            {{"beta", "share of a new cosine in the target's average, from 0 to 1 (default 0.01)",
              "0.01"},
             VisitingOrder::explained()},
            make,
            "Wang et al. 2021"};
}

}  // namespace detente::methods
