#include "common/conflict/fair_point.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/conflict/pivoted_cholesky.h"
#include "common/conflict/simplex_qp.h"
#include "common/conflict/small_matrix.h"

namespace detente {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// The hull of the unit rows reaches this close to zero, squared, when it is taken to hold it.
constexpr double kNoAscent = 1e-14;
constexpr double kSolved = 1e-10;
constexpr std::size_t kFewSteps = 16;
constexpr std::size_t kMostSteps = 1000;

// Cx = r·x^(−1/a), for C of unit diagonal.
class Newton {
  public:
    Newton(const Gramian& cosines, std::vector<double> r, double a)
        : c_(cosines), r_(std::move(r)), a_(a), n_(r_.size()), x_(n_) {
        // Exact for orthogonal rows.
        for (std::size_t i = 0; i < n_; ++i) x_[i] = std::pow(r_[i], a_ / (1 + a_));
    }

    void solve(std::size_t most_steps);
    const std::vector<double>& x() const { return x_; }
    std::size_t iterations() const { return iterations_; }
    double residual() const {
        const std::vector<double> cx = times(c_, x_);
        double worst = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            worst = std::max(worst, std::abs(cx[i] * std::pow(x_[i], 1 / a_) / r_[i] - 1));
        }
        return worst;
    }

  private:
    std::vector<double> gradient(const std::vector<double>& x) const {
        std::vector<double> out = times(c_, x);
        for (std::size_t i = 0; i < n_; ++i) out[i] -= r_[i] * std::pow(x[i], -1 / a_);
        return out;
    }
    // −H⁻¹·gradient.
    std::vector<double> direction(const std::vector<double>& slopes) const {
        std::vector<double> h(c_.entries().begin(), c_.entries().end());
        for (std::size_t i = 0; i < n_; ++i) {
            h[i * n_ + i] += r_[i] / a_ * std::pow(x_[i], -1 / a_ - 1);
        }
        std::vector<double> d = PivotedCholesky(std::move(h), n_, 0).solve(slopes);
        for (double& value : d) value = -value;
        return d;
    }
    // Goes along d: not past a fifth of any xᵢ, and not so far that the potential rises steeply.
    void step(const std::vector<double>& d, const std::vector<double>& slopes);

    const Gramian& c_;
    std::vector<double> r_;
    double a_;
    std::size_t n_;
    std::vector<double> x_;
    std::size_t iterations_ = 0;
};

void Newton::step(const std::vector<double>& d, const std::vector<double>& slopes) {
    double length = 1;
    for (std::size_t i = 0; i < n_; ++i) {
        if (d[i] < 0) length = std::min(length, 0.8 * x_[i] / -d[i]);
    }
    const double slope = std::abs(dot(slopes, d));
    std::vector<double> tried(n_);
    for (int halving = 0; halving < 60; ++halving, length /= 2) {
        for (std::size_t i = 0; i < n_; ++i) tried[i] = x_[i] + length * d[i];
        if (dot(gradient(tried), d) <= 0.5 * slope) break;
    }
    x_ = tried;
}

void Newton::solve(std::size_t most_steps) {
    double best = residual();
    std::vector<double> best_x = x_;
    int idle = 0;
    for (; iterations_ < most_steps && best > kEpsilon && idle < 4; ++iterations_) {
        const std::vector<double> slopes = gradient(x_);
        step(direction(slopes), slopes);
        const double now = residual();
        // Near the solution steps only shuffle the last digits.
        if (best < kSolved && now >= best) ++idle;
        if (!(now < best)) continue;
        best = now;
        best_x = x_;
    }
    x_ = best_x;
}

}  // namespace

FairPoint fair_point(const Gramian& gramian, double a) {
    const std::size_t n = gramian.tasks();
    const std::vector<double> lengths = lengths_of(gramian);
    std::vector<std::size_t> rows;
    for (std::size_t i = 0; i < n; ++i) {
        if (lengths[i] > 0) rows.push_back(i);
    }
    FairPoint point;
    point.alpha.assign(n, 0.0);
    if (rows.empty()) return point;
    const Gramian all = normalised(gramian);
    Gramian cosines(rows.size());
    std::vector<double> r(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t j = 0; j < rows.size(); ++j) cosines.at(i, j) = all.at(rows[i], rows[j]);
        r[i] = std::pow(lengths[rows[i]], 1 / a - 1);
    }
    const auto no_ascent = [&](const std::vector<double>& weights) {
        point.exists = false;
        double sum = 0;
        for (std::size_t i = 0; i < rows.size(); ++i) {
            point.alpha[rows[i]] = weights[i] / lengths[rows[i]];
            sum += point.alpha[rows[i]];
        }
        for (double& alpha : point.alpha) alpha /= sum;
        return point;
    };
    // Most problems are solved in a few steps; where that takes long there may be no solution.
    Newton newton(cosines, std::move(r), a);
    newton.solve(kFewSteps);
    SimplexPoint hull;
    if (!(newton.residual() <= kSolved)) {
        hull = least_norm_on_simplex(cosines);
        if (squared_length(cosines, hull.weights) <= kNoAscent) return no_ascent(hull.weights);
        newton.solve(kMostSteps);
    }
    point.iterations = newton.iterations();
    point.residual = newton.residual();
    if (!(point.residual <= kSolved)) return no_ascent(hull.weights);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        point.alpha[rows[i]] = newton.x()[i] / lengths[rows[i]];
    }
    return point;
}

}  // namespace detente
