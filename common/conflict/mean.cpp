// The mean: every weight 1/T.
#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Mean final : public Aggregator {
  public:
    std::string name() const override { return "mean"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .losses = false}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        if (const auto finite = check_finite(input); !finite) return finite.error();
        const std::size_t tasks = input.gramian->tasks();
        AggregatorOutput output;
        output.weights.assign(tasks, 1.0 / static_cast<double>(tasks));
        return output;
    }
};

}  // namespace

Method mean() {
    return {"mean", {}, [](const AggregatorConfig&) -> Result<std::unique_ptr<const Aggregator>> {
                return std::make_unique<const Mean>();
            }};
}

}  // namespace detente::methods
