// Learning rates that adapt to the delay, in three published forms:
//   ratio  η·n / max(n, τ): full up to the number of workers n
//          (Koloskova, Stich, Jaggi 2022, "Sharper Convergence Guarantees for Asynchronous SGD",
//          section 4, delay-adaptive stepsizes)
//   clip   min(η, 1 / (4Lτ))  (Mishchenko, Bach, Even, Woodworth 2022, "Asynchronous SGD Beats
//          Minibatch SGD Under Arbitrary Delays", theorem 1 with eq. 5)
//   drop   η up to τ_C, nothing beyond (Koloskova et al. 2022, theorem 8: η_t = 0 for τ > τ_C);
//          a dropped gradient is a rejection with advice refresh.
#include <algorithm>

#include "common/staleness/makers.h"

namespace detente {
namespace {

enum class Form { ratio, clip, drop };

class DelayAdaptive final : public Policy {
  public:
    DelayAdaptive(Form form, std::uint64_t n, double smoothness, std::uint64_t tau_c)
        : form_(form), n_(n), smoothness_(smoothness), tau_c_(tau_c) {}
    std::string name() const override { return "delay_adaptive"; }
    std::optional<std::uint64_t> bound() const override {
        return form_ == Form::drop ? std::optional(tau_c_) : std::nullopt;
    }
    void on(const PolicyEvent& event, PolicyState& /*state*/,
            std::vector<PolicyOutcome>& outcomes) const override {
        const auto* arrived = std::get_if<Arrived>(&event);
        if (arrived == nullptr) return;
        if (form_ == Form::drop && arrived->staleness > tau_c_) {
            outcomes.emplace_back(too_stale(*arrived));
            return;
        }
        outcomes.emplace_back(alone(*arrived, scale(*arrived)));
    }

  private:
    double scale(const Arrived& arrived) const {
        const auto delay = static_cast<double>(arrived.staleness);
        if (form_ == Form::ratio) {
            const auto workers = static_cast<double>(n_ > 0 ? n_ : arrived.members);
            return workers / std::max(workers, delay);
        }
        if (form_ == Form::clip && delay > 0 && arrived.learning_rate > 0) {
            return std::min(1.0, 1 / (4 * smoothness_ * delay * arrived.learning_rate));
        }
        return 1;
    }

    Form form_;
    std::uint64_t n_;
    double smoothness_;
    std::uint64_t tau_c_;
};

}  // namespace

PolicyEntry delay_adaptive_policy() {
    return {
        "delay_adaptive",
        {{"form",
          "which of the published forms",
          std::string("ratio"),
          0,
          0,
          {"ratio", "clip", "drop"}},
         {"n", "ratio: staleness at the full rate; 0 = the number of workers", std::uint64_t{0}},
         {"L", "clip: smoothness of the loss", 1.0, 1e-300},
         {"tau_c", "drop: largest staleness applied, in versions", std::uint64_t{8}}},
        [](const Parameters& parameters) -> Result<std::unique_ptr<const Policy>> {
            const std::string& form = parameters.choice("form");
            return std::make_unique<const DelayAdaptive>(
                form == "ratio"  ? Form::ratio
                : form == "clip" ? Form::clip
                                 : Form::drop,
                parameters.count("n"), parameters.real("L"), parameters.count("tau_c"));
        }};
}

}  // namespace detente
