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
// A residual this small settles that there is a solution; a larger one that is all rounding does
// not, since where there is no solution residuals fall to their rounding as well.
constexpr double kSolved = 1e-10;
constexpr double kShortStep = 0.02;  // relative to x; from afar no step is below a
constexpr int kMostIdle = 8;
constexpr std::size_t kFewSteps = 16;
// The potential's barrier is the steeper the larger a: up to here Newton's steps find the way from
// afar, from here on along the solutions of smaller a.
constexpr double kGentle = 2;
constexpr double kSteeper = 1.5;
// What x does not fall below on the way, and below what it is as good as 0.
constexpr double kSmallest = 1e-250;
constexpr double kNothing = 1e-240;
constexpr std::size_t kMostSteps = 1000;

// Cx = r·x^(−1/a), for C of unit diagonal; r = length^(1/a − 1).
class Newton {
  public:
    Newton(const Gramian& cosines, std::vector<double> lengths, double a)
        : c_(cosines), lengths_(std::move(lengths)), n_(lengths_.size()), r_(n_), x_(n_) {
        become(a);
        // Exact for orthogonal rows.
        for (std::size_t i = 0; i < n_; ++i) x_[i] = std::pow(r_[i], a_ / (1 + a_));
    }

    // Goes on with another a, from the x there is.
    void become(double a) {
        a_ = a;
        for (std::size_t i = 0; i < n_; ++i) r_[i] = std::pow(lengths_[i], 1 / a - 1);
    }
    void solve(std::size_t most_steps);
    // From near a solution, for large a: where x may have to fall by a hundred orders.
    void follow(double until);
    const std::vector<double>& x() const { return x_; }
    std::size_t iterations() const { return iterations_; }
    double residual() const {
        const std::vector<double> cx = times(c_, x_);
        double worst = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            if (idle(i, cx[i])) continue;
            worst = std::max(worst, std::abs(cx[i] * std::pow(x_[i], 1 / a_) / r_[i] - 1));
        }
        return worst;
    }

  private:
    // At a large a, a task served by the others anyway: its x is as good as 0.
    bool idle(std::size_t i, double gain) const { return x_[i] < kNothing && gain > 0; }
    // The equations' worst error in units of what is bearable: kSolved of the right side, and the
    // rounding of the left side's terms, which is more where rows nearly cancel.
    double error() const;
    double longest(const std::vector<double>& d) const {  // relative to x
        double most = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            if (x_[i] >= kNothing) most = std::max(most, std::abs(d[i]) / x_[i]);
        }
        return most;
    }
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
    std::vector<double> lengths_;
    std::size_t n_;
    double a_ = 1;
    std::vector<double> r_;
    std::vector<double> x_;
    std::size_t iterations_ = 0;
};

void Newton::step(const std::vector<double>& d, const std::vector<double>& slopes) {
    double length = 1;
    for (std::size_t i = 0; i < n_; ++i) {
        if (d[i] < 0 && x_[i] >= kNothing) length = std::min(length, 0.8 * x_[i] / -d[i]);
    }
    const double slope = std::abs(dot(slopes, d));
    std::vector<double> tried(n_);
    for (int halving = 0; halving < 60; ++halving, length /= 2) {
        for (std::size_t i = 0; i < n_; ++i) {
            tried[i] = std::max(kSmallest, x_[i] + length * d[i]);
        }
        if (dot(gradient(tried), d) <= 0.5 * slope) break;
    }
    x_ = tried;
}

double Newton::error() const {
    const std::vector<double> slopes = gradient(x_);
    double worst = 0;
    for (std::size_t i = 0; i < n_; ++i) {
        double terms = 0;
        for (std::size_t j = 0; j < n_; ++j) terms += std::abs(c_.at(i, j)) * x_[j];
        const double wanted = r_[i] * std::pow(x_[i], -1 / a_);
        if (idle(i, slopes[i] + wanted)) continue;
        const double bearable = kSolved * wanted + kEpsilon * terms;
        worst = std::max(worst, std::abs(slopes[i]) / bearable);
    }
    return worst;
}

void Newton::solve(std::size_t most_steps) {
    double best = error();
    std::vector<double> best_x = x_;
    int idle = 0;
    for (; iterations_ < most_steps && best > kEpsilon && idle < kMostIdle; ++iterations_) {
        const std::vector<double> slopes = gradient(x_);
        const std::vector<double> d = direction(slopes);
        // Near the solution steps only shuffle the last digits. Far from it the error may rise for
        // a while, as it is the potential that falls.
        const bool near = longest(d) < kShortStep;
        step(d, slopes);
        const double now = error();
        if (now < best) {
            best = now;
            best_x = x_;
        } else if (near) {
            ++idle;
        }
    }
    x_ = best_x;
}

// Newton's steps on Cx = s, log s + log(x)/a = log r in both x and s, whose second is nearly linear
// in log x; and so what falls, falls by its logarithm.
void Newton::follow(double until) {
    std::vector<double> s = times(c_, x_);
    for (std::size_t i = 0; i < n_; ++i) {
        if (!(s[i] > 0)) s[i] = r_[i] * std::pow(x_[i], -1 / a_);
    }
    const auto moved = [](double value, double by) {
        return std::max(kSmallest, by > 0 ? value + by : value * std::exp(by / value));
    };
    double furthest = 1;
    for (std::size_t k = 0; k < kFewSteps && furthest > until; ++k, ++iterations_) {
        const std::vector<double> cx = times(c_, x_);
        std::vector<double> h(c_.entries().begin(), c_.entries().end());
        std::vector<double> right(n_);
        std::vector<double> off(n_);
        for (std::size_t i = 0; i < n_; ++i) {
            off[i] = std::log(r_[i]) - std::log(s[i]) - std::log(x_[i]) / a_;
            h[i * n_ + i] += s[i] / (a_ * x_[i]);
            right[i] = s[i] - cx[i] + s[i] * off[i];
        }
        const std::vector<double> d = PivotedCholesky(std::move(h), n_, 0).solve(right);
        furthest = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            const double by = s[i] * (off[i] - d[i] / (a_ * x_[i]));
            furthest = std::max(furthest, std::abs(by) / s[i]);
            s[i] = moved(s[i], by);
            x_[i] = moved(x_[i], d[i]);
        }
    }
}

// The geometric mean.
double typical(const std::vector<double>& lengths, const std::vector<std::size_t>& rows) {
    double sum = 0;
    for (const std::size_t i : rows) sum += std::log(lengths[i]);
    return std::exp(sum / static_cast<double>(rows.size()));
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
    // In a unit of length in which powers of lengths stay within double.
    const double unit = typical(lengths, rows);
    std::vector<double> relative(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t j = 0; j < rows.size(); ++j) cosines.at(i, j) = all.at(rows[i], rows[j]);
        relative[i] = lengths[rows[i]] / unit;
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
    Newton newton(cosines, std::move(relative), std::min(a, kGentle));
    if (a <= kGentle) newton.solve(kFewSteps);
    if (a > kGentle || !(newton.residual() <= kSolved)) {
        const SimplexPoint hull = least_norm_on_simplex(cosines);
        if (squared_length(cosines, hull.weights) <= kNoAscent) return no_ascent(hull.weights);
        for (double stage = kGentle; stage < a; stage *= kSteeper) {
            newton.become(stage);
            if (stage == kGentle) newton.solve(kMostSteps);
            newton.follow(kShortStep);
        }
        newton.become(a);
        if (a > kGentle) newton.follow(kSolved);
        newton.solve(kMostSteps);
    }
    point.iterations = newton.iterations();
    point.residual = newton.residual();
    if (!std::isfinite(point.residual)) return no_ascent(least_norm_on_simplex(cosines).weights);
    const double back = std::pow(unit, -2 * a / (1 + a));
    for (std::size_t i = 0; i < rows.size(); ++i) {
        point.alpha[rows[i]] = back * newton.x()[i] / (lengths[rows[i]] / unit);
    }
    return point;
}

}  // namespace detente
