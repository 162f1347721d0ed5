// Elastic averaging: every worker trains weights x of its own, and now and then a spring pulls them
// and the servers' centre x̃ together.
//   x ← x − η·g(x);  every tau gradients: e = α(x − x̃), x ← x − e, x̃ ← x̃ + e
// Zhang, Choromanska, LeCun 2015, "Deep Learning with Elastic Averaging SGD", algorithm 1
// (asynchronous EASGD). The paper takes α = .9/p for p workers; alpha = 0 does that.
//
// The worker half pushes −e; the policy sets the rate to 1, so rule sgd without momentum adds e to
// the centre. x steps with the rule's learning rate, without schedule. Worker vector: x. Between
// exchanges zeros are pushed, so that versions and books go on as ever.
#include <algorithm>

#include "common/staleness/makers.h"

namespace detente {
namespace {

class ElasticWorker final : public WorkerHalf {
  public:
    ElasticWorker(double alpha, std::uint64_t tau) : alpha_(alpha), tau_(tau) {}
    std::uint32_t vectors() const override { return 1; }
    void before_compute(const Place& place, std::span<float> weights) const override {
        const std::span<float> own = place.vectors[0];
        if (place.computed == 0) std::copy(weights.begin(), weights.end(), own.begin());
        std::copy(own.begin(), own.end(), weights.begin());
    }
    void before_push(const Place& place, std::span<float> gradient) const override {
        const double alpha = alpha_ > 0 ? alpha_ : 0.9 / std::max(1U, place.workers);
        const bool exchanges = (place.computed + 1) % tau_ == 0;
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            float& own = place.vectors[0][i];
            const double pull =
                exchanges ? alpha * (static_cast<double>(own) - place.pulled[i]) : 0;
            own = static_cast<float>(own - pull - place.learning_rate * gradient[i]);
            gradient[i] = static_cast<float>(-pull);
        }
    }

  private:
    double alpha_;
    std::uint64_t tau_;
};

class Easgd final : public Policy {
  public:
    Easgd(double alpha, std::uint64_t tau) : worker_(alpha, tau) {}
    std::string name() const override { return "easgd"; }
    PolicyNeeds needs() const override {
        PolicyNeeds needs;
        needs.plain_sgd = true;
        needs.rate_above_zero = true;  // at 0 the worker would move by e and the centre would not
        return needs;
    }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        outcomes.emplace_back(alone(*arrived, 1 / arrived->learning_rate));
    }
    const WorkerHalf* worker_half() const override { return &worker_; }

  private:
    ElasticWorker worker_;
};

}  // namespace

PolicyEntry easgd_policy() {
    return {"easgd",
            {{"alpha", "strength of the spring; 0 = .9 / workers", 0.0, 0, 1},
             {"tau", "gradients between two exchanges", std::uint64_t{1}, 1}},
            [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
                return std::make_unique<const Easgd>(parameters.real("alpha"),
                                                     parameters.count("tau"));
            }};
}

}  // namespace detente
