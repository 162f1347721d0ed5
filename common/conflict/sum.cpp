// The plain sum: every weight 1, as if the losses had been added before the backward. The control
// every other method is compared with.
#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Sum final : public Aggregator {
  public:
    std::string name() const override { return "sum"; }
    AggregatorNeeds needs() const override { return {.gramian = false}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        AggregatorOutput output;
        output.weights.assign(input.gramian->tasks(), 1.0);
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Sum>(); }

}  // namespace

Method sum() { return {"sum", {}, make, "the control"}; }

}  // namespace detente::methods
