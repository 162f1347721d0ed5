// Weights as given: one number per task (linear scalarisation by hand), or one for all.
#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Constant final : public Aggregator {
  public:
    explicit Constant(std::vector<double> weights) : weights_(std::move(weights)) {}
    std::string name() const override { return "constant"; }
    AggregatorNeeds needs() const override { return {.gramian = false}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        auto all = spread(weights_, input.gramian->tasks(), "constant's weights");
        if (!all) return all.error();
        AggregatorOutput output;
        output.weights = std::move(*all);
        return output;
    }

  private:
    std::vector<double> weights_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    std::vector<double> weights = settings.list("weights", "", -1e18);
    if (settings.error()) return *settings.error();
    if (weights.empty()) weights.push_back(1);
    return std::make_unique<const Constant>(std::move(weights));
}

}  // namespace

Method constant() {
    return {"constant",
            {{"weights", "one number per task, separated by ',', or one for all (default 1)", "1",
              true}},
            make,
            "by hand"};
}

}  // namespace detente::methods
