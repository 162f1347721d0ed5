// GLS: Chennupati, Sistu, Yogamani and Rawashdeh, "MultiNet++: multi-stream feature aggregation and
// geometric loss strategy for multi-task learning" (2019), equation 3: descends the geometric mean
// of the losses, (ΠL)^(1/T), whose gradient has the weights wₜ = (ΠL)^(1/T) / (T·Lₜ).
//
// The geometric mean is of positive losses: one below 1e-8 counts as 1e-8 (status degenerate).
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

constexpr double kLeastLoss = 1e-8;

class Gls final : public Aggregator {
  public:
    std::string name() const override { return "gls"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .losses = true}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        AggregatorOutput output;
        const auto tasks = static_cast<double>(input.losses.size());
        double log_mean = 0;
        for (const double loss : input.losses) {
            if (loss < kLeastLoss) output.status = AggregatorStatus::degenerate;
            log_mean += std::log(std::max(loss, kLeastLoss)) / tasks;
        }
        for (const double loss : input.losses) {
            output.weights.push_back(std::exp(log_mean - std::log(std::max(loss, kLeastLoss))) /
                                     tasks);
        }
        output.objective = std::exp(log_mean);
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Gls>(); }

}  // namespace

Method gls() { return {"gls", {}, make, "Chennupati et al. 2019"}; }

}  // namespace detente::methods
