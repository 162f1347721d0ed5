// GradDrop: Chen, Ngiam, Huang, Luong, Kretzschmar, Chai and Anguelov, "Just pick a sign:
// optimizing deep multitask models with gradient sign dropout" (2020), algorithm 1, in parameter
// space: at each coordinate one sign is drawn, with the probability of the positive one
//     P = ½(1 + Σg/Σ|g|),
// and gradients of the other sign are dropped; the rest is added. `leak` lets a task's dropped
// share through: Σ (leakᵢ + (1 − leakᵢ)·maskᵢ)·gᵢ. `k` is the slope of the paper's f(P) around ½.
//
// The draw is a function of the random key, the tensor and the coordinate: the same for any cut
// into blocks and any number of shards.
#include <algorithm>
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/task_vectors.h"
#include "common/random.h"

namespace detente::methods {
namespace {

class Graddrop final : public Aggregator {
  public:
    Graddrop(std::vector<double> leak, double k) : leak_(std::move(leak)), k_(k) {}
    std::string name() const override { return "graddrop"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .coordinates = true}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        if (const auto leak = spread(leak_, input.gramian->tasks(), "graddrop's leak"); !leak) {
            return leak.error();
        }
        AggregatorOutput output;
        if (all_zero(*input.gramian)) output.status = AggregatorStatus::all_zero;
        return output;
    }
    void combine(const CoordinateRows<float>& block, std::span<float> out) const override {
        combine_any(block, out);
    }
    void combine(const CoordinateRows<double>& block, std::span<double> out) const override {
        combine_any(block, out);
    }

  private:
    template <class Real>
    void combine_any(const CoordinateRows<Real>& block, std::span<Real> out) const {
        std::vector<double> values(block.rows.size(), 0.0);
        for (std::size_t e = 0; e < out.size(); ++e) {
            double sum = 0;
            double size = 0;
            for (std::size_t i = 0; i < block.rows.size(); ++i) {
                if (block.rows[i] == nullptr) continue;
                values[i] = element_of(block, i, e);
                sum += values[i];
                size += std::abs(values[i]);
            }
            const double positive = size > 0 ? (1 + sum / size) / 2 : 0.5;
            const double chance = std::clamp(0.5 + k_ * (positive - 0.5), 0.0, 1.0);
            Random random(random_key(block.random_key, Purpose::aggregator, {block.first + e}));
            const bool keeps_positive = random.uniform() < chance;
            double result = 0;
            for (std::size_t i = 0; i < block.rows.size(); ++i) {
                if (block.rows[i] == nullptr) continue;
                const double leak = leak_.size() == 1 ? leak_.front() : leak_[i];
                const double share = (values[i] > 0) == keeps_positive ? 1.0 : leak;
                result += share * values[i];
            }
            out[e] = static_cast<Real>(result);
        }
    }

    std::vector<double> leak_;
    double k_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    std::vector<double> leak = settings.list("leak", "", 0);
    const double k = settings.real("k", 1, 0, 1e6);
    if (settings.error()) return *settings.error();
    if (leak.empty()) leak.push_back(0);
    for (const double share : leak) {
        if (share <= 1) continue;
        return fail(ErrorCode::bad_job, "aggregator 'graddrop': leak must be numbers from 0 to 1");
    }
    return std::make_unique<const Graddrop>(std::move(leak), k);
}

}  // namespace

Method graddrop() {
    return {
        "graddrop",
        {{"leak",
          "share of a dropped gradient that passes, from 0 to 1: one number per task, separated "
          "by ',', or one for all (default 0)",
          "0", true},
         {"k", "slope of the drawing probability around one half (at least 0; default 1)", "1"}},
        make,
        "Chen et al. 2020"};
}

}  // namespace detente::methods
