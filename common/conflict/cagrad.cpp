// CAGrad: Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent for multi-task learning"
// (2021), equation 4 and algorithm 1. With g₀ = bᵀJ, b = 1/T: the direction whose worst task
// improves most within a ball of radius c‖g₀‖ around g₀,
//     w* = argmin over the simplex of g₀·g_w + c‖g₀‖·‖g_w‖, g_w = wᵀJ;
//     result g₀ + c‖g₀‖/‖g_w*‖·g_w*, so that the weights are b + c‖g₀‖/‖g_w*‖·w*.
//
// Solved exactly. With s = ‖g_w‖ the objective is the least over s of
// g₀·g_w + (c‖g₀‖/2)(‖g_w‖²/s + s), for fixed s a quadratic program: least ½wᵀGw + t·(Gb)ᵀw, with
// t = s / (c‖g₀‖). What remains is one equation, ‖g_w(t)‖² = (c‖g₀‖·t)²; both sides are linear in
// t² while the support stays as it is, so that Newton's steps end after finitely many.
//
// kkt_residual is the quadratic program's at that t; above 1e-10 the status is degenerate. Where
// the least is at g_w = 0 the paper's result is 0/0: the choice is g₀ (status degenerate). So it is
// for g₀ = 0, where the ball is a point (degenerate too). With all gradients zero (status all_zero)
// the weights are b.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/conflict/methods.h"
#include "common/conflict/simplex_qp.h"
#include "common/conflict/small_matrix.h"

namespace detente::methods {
namespace {

class Cagrad final : public Aggregator {
  public:
    explicit Cagrad(double c) : c_(c) {}
    std::string name() const override { return "cagrad"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        AggregatorOutput output;
        output.weights.assign(tasks, 1.0 / static_cast<double>(tasks));
        if (all_zero(g)) {
            output.status = AggregatorStatus::all_zero;
            return output;
        }
        if (c_ == 0) return output;
        const std::vector<double> h = times(g, output.weights);
        const double radius_sq = c_ * c_ * squared_length(g, output.weights);
        // Shorter than what rounding makes of it.
        const double nothing = kRounding * largest_entry(g);
        output.status = AggregatorStatus::degenerate;
        if (radius_sq <= c_ * c_ * nothing) return output;
        const SimplexPoint least = solved(g, h, radius_sq, output.weights);
        const double square = squared_length(g, least.weights);
        output.kkt_residual = least.kkt_residual;
        if (is_zero(g, least.weights, square)) return output;
        if (least.kkt_residual <= kSolvedTo) output.status = AggregatorStatus::ok;
        for (std::size_t i = 0; i < tasks; ++i) {
            output.weights[i] += std::sqrt(radius_sq / square) * least.weights[i];
        }
        return output;
    }

  private:
    static constexpr double kRounding = 1e-15;

    // Whether wᵀGw is nothing but rounding, beside what it would be without cancellation.
    static bool is_zero(const Gramian& g, const std::vector<double>& w, double square) {
        double sum = 0;
        for (std::size_t i = 0; i < w.size(); ++i) {
            for (std::size_t j = 0; j < w.size(); ++j) sum += w[i] * std::abs(g.at(i, j)) * w[j];
        }
        return square <= kRounding * sum;
    }

    // In the order of magnitude as well: t may have to fall by many.
    static double middle(double low, double high) {
        if (low == 0) return 1e-3 * high;
        return low < 0.25 * high ? std::sqrt(low) * std::sqrt(high) : (low + high) / 2;
    }

    // The root in t² of ‖g_w‖² − radius²·t², bracketed: it is above 0 left of it, below 0 right.
    static SimplexPoint solved(const Gramian& g, const std::vector<double>& h, double radius_sq,
                               const std::vector<double>& b) {
        double low = 0;
        double high = std::numeric_limits<double>::infinity();
        double t_sq = squared_length(g, b) / radius_sq;
        SimplexProgram program(g, h);
        SimplexPoint point;
        int zeros = 0;
        for (int round = 0; round < 200; ++round) {
            point = program.least(std::sqrt(t_sq));
            const double square = squared_length(g, point.weights);
            const double excess = square - radius_sq * t_sq;
            (excess > 0 ? low : high) = t_sq;
            // At the root of this support's line, or as near as doubles are.
            const double rest = square - point.growth * t_sq;
            double next = rest / (radius_sq - point.growth);
            if (!(next > low && next < high)) {
                next = std::isinf(high) ? 4 * t_sq : middle(low, high);
            }
            // A smaller t may find rows so much shorter that they are not zero yet: the root is at
            // t = 0 only if the next point is zero, too.
            zeros = is_zero(g, point.weights, square) ? zeros + 1 : 0;
            const bool there = std::abs(next - t_sq) <= 4e-16 * t_sq;
            const bool closed = std::isfinite(high) && high - low <= 4e-16 * high;
            t_sq = next;
            if (there || closed || zeros == 2) break;
        }
        return point;
    }

    double c_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const double c = settings.real("c", 0.5, 0, 1e6);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Cagrad>(c);
}

}  // namespace

Method cagrad() {
    return {"cagrad",
            {{"c",
              "radius of the ball around the mean gradient, in its length; the paper's proofs are "
              "for below 1 (at least 0; default 0.5)",
              "0.5"}},
            make,
            "Liu et al. 2021"};
}

}  // namespace detente::methods
