// RLW: Lin, Ye, Zhang and Tsang, "Reasonable effectiveness of random weighting: a litmus test for
// multi-task learning" (2022), section 3: w = softmax of independent N(0, 1), drawn anew at every
// step from the random key.
#include "common/conflict/methods.h"
#include "common/conflict/softmax.h"
#include "common/random.h"

namespace detente::methods {
namespace {

class Rlw final : public Aggregator {
  public:
    std::string name() const override { return "rlw"; }
    AggregatorNeeds needs() const override { return {.gramian = false}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        Random random(random_key(input.random_key, Purpose::aggregator));
        std::vector<double> draws;
        for (std::size_t i = 0; i < input.gramian->tasks(); ++i) draws.push_back(random.normal());
        AggregatorOutput output;
        output.weights = softmax(draws);
        return output;
    }
};

MadeAggregator make(const AggregatorConfig& /*config*/) { return std::make_unique<const Rlw>(); }

}  // namespace

Method rlw() { return {"rlw", {}, make, "Lin et al. 2022"}; }

}  // namespace detente::methods
