// FairGrad: Ban and Ji, "Fair resource allocation in multi-task learning" (2024), equation 6: the
// weights are the positive solution of G·w = w^(−1/α), from maximising the tasks' α-fair utility.
// α = 1 is Nash-MTL; α → ∞ nears max-min fairness. The paper hands it to a least-squares solver;
// here it is solved by Newton's method on its convex potential.
//
// kkt_residual is the worst |(Gw)ᵢ·wᵢ^(1/α) − 1|. The cases without a solution are as in nash.cpp.
// With α other than 1 and gradients of very different lengths rounding alone leaves a large one.
#include "common/conflict/fair_point.h"
#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Fairgrad final : public Aggregator {
  public:
    explicit Fairgrad(double alpha) : alpha_(alpha) {}
    std::string name() const override { return "fairgrad"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        return fair_weights(*input.gramian, alpha_);
    }

  private:
    double alpha_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double alpha = settings.real("alpha", 1, 0.05, 100);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Fairgrad>(alpha);
}

}  // namespace

Method fairgrad() {
    return {"fairgrad",
            {{"alpha", "of the α-fair utility, from 0.05 to 100; 1 is nash (default 1)", "1"}},
            make,
            "Ban and Ji 2024"};
}

}  // namespace detente::methods
