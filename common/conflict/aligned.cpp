// Aligned-MTL: Senushkin, Patakin, Kuznetsov and Konushin, "Independent component alignment for
// multi-task learning" (2023), algorithm 1 and equation 12: the principal components of the
// gradients are made equally long. With G = VΛVᵀ, b = 1/T,
//     w = √λ*·VΛ^(−½)Vᵀb,
// over the eigenvalues that are not zero; λ* is the least of them (`min`, the paper's), their
// median (the lower one of two in the middle), or their mean (`rmse`: the root of it scales).
//
// Dependent gradients need no special case: the zero components are left out, and where several
// components are equal any basis gives the same weights. Where some gradients are dependent and
// others shorter than about 1e-7 of the longest, the short ones' components cannot be told from
// rounding and are left out too (status degenerate). With all gradients zero (status all_zero) the
// weights are b.
#include <cmath>

#include "common/conflict/methods.h"
#include "common/conflict/symmetric_eigen.h"

namespace detente::methods {
namespace {

enum class Scale { min, median, rmse };

class Aligned final : public Aggregator {
  public:
    explicit Aligned(Scale scale) : scale_(scale) {}
    std::string name() const override { return "aligned"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        const double b = 1.0 / static_cast<double>(tasks);
        AggregatorOutput output;
        const SymmetricEigen eigen(g);
        if (eigen.rank() == 0) {
            output.weights.assign(tasks, b);
            output.status = AggregatorStatus::all_zero;
            return output;
        }
        if (eigen.cut()) output.status = AggregatorStatus::degenerate;
        const double length = length_of({eigen.values().data(), eigen.rank()});
        output.weights.assign(tasks, 0.0);
        for (std::size_t k = 0; k < eigen.rank(); ++k) {
            const std::span<const double> v = eigen.vector(k);
            double along = 0;
            for (const double x : v) along += x * b;
            const double factor = length / std::sqrt(eigen.values()[k]) * along;
            for (std::size_t i = 0; i < tasks; ++i) output.weights[i] += factor * v[i];
        }
        return output;
    }

  private:
    // `values`: from the largest down.
    double length_of(std::span<const double> values) const {
        if (scale_ == Scale::min) return std::sqrt(values.back());
        if (scale_ == Scale::median) return std::sqrt(values[values.size() / 2]);
        double sum = 0;
        for (const double value : values) sum += value;
        return std::sqrt(sum / static_cast<double>(values.size()));
    }

    Scale scale_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const std::string scale = settings.choice("scale", {"min", "median", "rmse"});
    if (settings.error()) return *settings.error();
    return std::make_unique<const Aligned>(scale == "min"      ? Scale::min
                                           : scale == "median" ? Scale::median
                                                               : Scale::rmse);
}

}  // namespace

Method aligned() {
    return {
        "aligned",
        {{"scale", "how long components become: min, median or rmse of their lengths (default min)",
          "min"}},
        make,
        "Senushkin et al. 2023"};
}

}  // namespace detente::methods
