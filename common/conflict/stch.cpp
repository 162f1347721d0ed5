// STCH: Lin, Zhang, Yang, Liu, Wang and Zhang, "Smooth Tchebycheff scalarization for
// multi-objective optimization" (2024), equation 8: descends a smooth maximum of the losses,
//     μ·log Σ exp(λᵢ(Lᵢ − zᵢ)/μ),
// whose gradient has the weights λ ⊙ softmax(λ ⊙ (L − z)/μ). z is the ideal point, in the losses'
// own unit; λ is this program's `preference` (1 for every task without one), by which losses come
// multiplied and weights are multiplied afterwards (composed.h). (The authors' code for multi-task
// learning first takes logs of losses relative to their average in a warm-up; here losses are as
// they come.)
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/softmax.h"

namespace detente::methods {
namespace {

class Stch final : public Aggregator {
  public:
    Stch(double mu, std::vector<double> ideal) : mu_(mu), ideal_(std::move(ideal)) {}
    std::string name() const override { return "stch"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .losses = true}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const auto ideal = spread(ideal_, input.losses.size(), "stch's z");
        if (!ideal) return ideal.error();
        std::vector<double> above;
        for (std::size_t i = 0; i < input.losses.size(); ++i) {
            const double preference = input.preference.empty() ? 1.0 : input.preference[i];
            above.push_back((input.losses[i] - preference * (*ideal)[i]) / mu_);
        }
        const double top = *std::max_element(above.begin(), above.end());
        double sum = 0;
        for (const double x : above) sum += std::exp(x - top);
        AggregatorOutput output;
        output.weights = softmax(above);
        output.objective = mu_ * (top + std::log(sum));
        return output;
    }

  private:
    double mu_;
    std::vector<double> ideal_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double mu = settings.real("mu", 1, 1e-6, 1e6);
    std::vector<double> ideal = settings.list("z", "", -1e18);
    if (settings.error()) return *settings.error();
    if (ideal.empty()) ideal.push_back(0);
    return std::make_unique<const Stch>(mu, std::move(ideal));
}

}  // namespace

Method stch() {
    return {
        "stch",
        {{"mu", "smoothness: small nears the plain maximum (from 1e-6; default 1)", "1"},
         {"z", "the ideal point: one loss per task, separated by ',', or one for all (default 0)",
          "0", true}},
        make,
        "Lin et al. 2024"};
}

}  // namespace detente::methods
