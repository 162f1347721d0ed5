// Trimmed mean: Yin, Chen, Ramchandran and Bartlett, "Byzantine-robust distributed learning:
// towards optimal statistical rates" (2018), definition 2: at each coordinate the `trim` largest
// and the `trim` smallest values are left out, and the others are averaged. (The paper trims a
// fraction β of the values: trim = βT.)
//
// 2·trim must be below the number of tasks. On a block that fewer tasks own, at most so many are
// left out that one or two remain.
#include <fmt/format.h>

#include <algorithm>

#include "common/conflict/methods.h"
#include "common/conflict/task_vectors.h"

namespace detente::methods {
namespace {

class TrimmedMean final : public Aggregator {
  public:
    explicit TrimmedMean(std::size_t trim) : trim_(trim) {}
    std::string name() const override { return "trimmed_mean"; }
    AggregatorNeeds needs() const override { return {.gramian = false, .coordinates = true}; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const std::size_t tasks = input.gramian->tasks();
        if (2 * trim_ >= tasks) {
            return fail(ErrorCode::bad_job,
                        fmt::format("trimmed_mean with trim = {} leaves nothing of {} tasks: give "
                                    "a trim below half their number",
                                    trim_, tasks));
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
        std::vector<double> values;
        for (std::size_t e = 0; e < out.size(); ++e) {
            values.clear();
            for (std::size_t i = 0; i < block.rows.size(); ++i) {
                if (block.rows[i] == nullptr) continue;
                values.push_back(element_of(block, i, e));
            }
            if (values.empty()) {
                out[e] = 0;
                continue;
            }
            std::sort(values.begin(), values.end());
            const std::size_t trim = std::min(trim_, (values.size() - 1) / 2);
            double sum = 0;
            for (std::size_t k = trim; k + trim < values.size(); ++k) sum += values[k];
            out[e] = static_cast<Real>(sum / static_cast<double>(values.size() - 2 * trim));
        }
    }

    std::size_t trim_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const std::uint64_t trim = settings.count("trim", 1, 0, 1000000);
    if (settings.error()) return *settings.error();
    return std::make_unique<const TrimmedMean>(trim);
}

}  // namespace

Method trimmed_mean() {
    return {"trimmed_mean",
            {{"trim",
              "how many of the largest and of the smallest values are left out at each coordinate "
              "(default 1)",
              "1"}},
            make,
            "Yin et al. 2018"};
}

}  // namespace detente::methods
