// The mean: every weight 1/T.
#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Mean final : public Aggregator {
  public:
    std::string name() const override { return "mean"; }
    AggregatorNeeds needs() const override { return {.gramian = false}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const std::size_t tasks = input.gramian->tasks();
        AggregatorOutput output;
        output.weights.assign(tasks, 1.0 / static_cast<double>(tasks));
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Mean>(); }

}  // namespace

Method mean() { return {"mean", {}, make, "the control"}; }

}  // namespace detente::methods
