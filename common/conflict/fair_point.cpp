#include "common/conflict/fair_point.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

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
constexpr double kTinyStep = 1e-5;   // after which the last factor will do
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
        : c_(cosines), lengths_(std::move(lengths)), n_(lengths_.size()), r_(n_) {
        at_.x.resize(n_);
        become(a);
        // Exact for orthogonal rows.
        for (std::size_t i = 0; i < n_; ++i) at_.x[i] = std::pow(r_[i], a_ / (1 + a_));
        evaluate(at_);
    }

    // Goes on with another a, from the x there is.
    void become(double a) {
        a_ = a;
        for (std::size_t i = 0; i < n_; ++i) r_[i] = std::pow(lengths_[i], 1 / a - 1);
        if (!at_.gains.empty()) evaluate(at_);
    }
    // To the solution; or, with `until`, to where steps are shorter than that relative to x.
    void solve(std::size_t most_steps, double until = 0);
    // From near a solution, for large a: where x may have to fall by a hundred orders.
    void follow(double until);
    // Whether xᵀJ shows that the hull of the rows keeps well away from zero: no point of it is
    // shorter than the least of its products with the rows, over its length.
    bool shows_ascent() const;
    const std::vector<double>& x() const { return at_.x; }
    std::size_t iterations() const { return iterations_; }
    double residual() const {
        double worst = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            if (idle(at_.x[i], at_.gains[i])) continue;
            worst =
                std::max(worst, std::abs(at_.gains[i] * std::pow(at_.x[i], 1 / a_) / r_[i] - 1));
        }
        return worst;
    }

  private:
    // An x, and what follows from it.
    struct Place {
        std::vector<double> x;
        std::vector<double> gains;   // Cx
        std::vector<double> terms;   // |C|x
        std::vector<double> wanted;  // r·x^(−1/a)
        double slope(std::size_t i) const { return gains[i] - wanted[i]; }
    };
    void evaluate(Place& place) const;
    // At a large a, a task served by the others anyway: its x is as good as 0.
    static bool idle(double x, double gain) { return x < kNothing && gain > 0; }
    // The equations' worst error in units of what is bearable: kSolved of the right side, and the
    // rounding of the left side's terms, which is more where rows nearly cancel.
    double error() const;
    double longest(const std::vector<double>& d) const {  // relative to x
        double most = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            if (at_.x[i] >= kNothing) most = std::max(most, std::abs(d[i]) / at_.x[i]);
        }
        return most;
    }
    // −H⁻¹·gradient, with H as it is or as it was factored last.
    std::vector<double> direction(bool anew);
    // Goes along d: not past a fifth of any xᵢ, and not so far that the potential rises steeply.
    void step(const std::vector<double>& d);

    const Gramian& c_;
    std::vector<double> lengths_;
    std::size_t n_;
    double a_ = 1;
    std::vector<double> r_;
    Place at_;
    Place tried_;
    std::optional<PivotedCholesky> factor_;
    std::size_t iterations_ = 0;
};

void Newton::evaluate(Place& place) const {
    place.gains.assign(n_, 0.0);
    place.terms.assign(n_, 0.0);
    place.wanted.resize(n_);
    for (std::size_t k = 0; k < n_; ++k) {
        const double* row = c_.entries().data() + k * n_;
        const double weight = place.x[k];
        for (std::size_t i = 0; i < n_; ++i) {
            const double term = row[i] * weight;
            place.gains[i] += term;
            place.terms[i] += std::abs(term);
        }
    }
    for (std::size_t i = 0; i < n_; ++i) {
        place.wanted[i] = r_[i] * std::pow(place.x[i], -1 / a_);
    }
}

std::vector<double> Newton::direction(bool anew) {
    if (anew || !factor_) {
        std::vector<double> h(c_.entries().begin(), c_.entries().end());
        for (std::size_t i = 0; i < n_; ++i) h[i * n_ + i] += at_.wanted[i] / at_.x[i] / a_;
        factor_.emplace(h, n_, 0);
    }
    std::vector<double> right(n_);
    for (std::size_t i = 0; i < n_; ++i) right[i] = -at_.slope(i);
    return factor_->solve(right);
}

void Newton::step(const std::vector<double>& d) {
    double length = 1;
    double slope = 0;
    for (std::size_t i = 0; i < n_; ++i) {
        if (d[i] < 0 && at_.x[i] >= kNothing) length = std::min(length, 0.8 * at_.x[i] / -d[i]);
        slope += at_.slope(i) * d[i];
    }
    tried_.x.resize(n_);
    for (int halving = 0; halving < 60; ++halving, length /= 2) {
        for (std::size_t i = 0; i < n_; ++i) {
            tried_.x[i] = std::max(kSmallest, at_.x[i] + length * d[i]);
        }
        evaluate(tried_);
        double there = 0;
        for (std::size_t i = 0; i < n_; ++i) there += tried_.slope(i) * d[i];
        if (there <= 0.5 * std::abs(slope)) break;
    }
    std::swap(at_, tried_);
}

double Newton::error() const {
    double worst = 0;
    for (std::size_t i = 0; i < n_; ++i) {
        if (idle(at_.x[i], at_.gains[i])) continue;
        const double bearable = kSolved * at_.wanted[i] + kEpsilon * at_.terms[i];
        worst = std::max(worst, std::abs(at_.slope(i)) / bearable);
    }
    return worst;
}

bool Newton::shows_ascent() const {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < n_; ++i) {
        const double rounding = kEpsilon * static_cast<double>(n_ + 2) * at_.terms[i];
        least = std::min(least, at_.gains[i] - rounding);
    }
    // A row's length is 1 only to rounding, and a sum's less than its terms' altogether.
    const double square = dot(at_.gains, at_.x) + kNoAscent * dot(at_.terms, at_.x);
    return least > 0 && least * least > 4 * kNoAscent * square;
}

void Newton::solve(std::size_t most_steps, double until) {
    double best = error();
    std::vector<double> best_x = at_.x;
    int idle = 0;
    double longest_step = std::numeric_limits<double>::infinity();
    for (; iterations_ < most_steps && best > kEpsilon && idle < kMostIdle; ++iterations_) {
        // Near the solution steps only shuffle the last digits. Far from it the error may rise for
        // a while, as it is the potential that falls.
        const std::vector<double> d = direction(longest_step > kTinyStep);
        longest_step = longest(d);
        const bool near = longest_step < kShortStep;
        step(d);
        const double now = error();
        if (now < best) {
            best = now;
            best_x = at_.x;
        } else if (near) {
            ++idle;
        }
        if (longest_step < until) return;
    }
    if (at_.x != best_x) {
        at_.x = best_x;
        evaluate(at_);
    }
}

// Newton's steps on Cx = s, log s + log(x)/a = log r in both x and s, whose second is nearly linear
// in log x; and so what falls, falls by its logarithm.
void Newton::follow(double until) {
    std::vector<double>& x = at_.x;
    std::vector<double> s = at_.gains;
    for (std::size_t i = 0; i < n_; ++i) {
        if (!(s[i] > 0)) s[i] = at_.wanted[i];
    }
    const auto moved = [](double value, double by) {
        return std::max(kSmallest, by > 0 ? value + by : value * std::exp(by / value));
    };
    double furthest = 1;
    for (std::size_t k = 0; k < kFewSteps && furthest > until; ++k, ++iterations_) {
        const std::vector<double> cx = times(c_, x);
        std::vector<double> h(c_.entries().begin(), c_.entries().end());
        std::vector<double> right(n_);
        std::vector<double> off(n_);
        for (std::size_t i = 0; i < n_; ++i) {
            off[i] = std::log(r_[i]) - std::log(s[i]) - std::log(x[i]) / a_;
            h[i * n_ + i] += s[i] / (a_ * x[i]);
            right[i] = s[i] - cx[i] + s[i] * off[i];
        }
        const std::vector<double> d = PivotedCholesky(h, n_, 0).solve(right);
        furthest = 0;
        for (std::size_t i = 0; i < n_; ++i) {
            const double by = s[i] * (off[i] - d[i] / (a_ * x[i]));
            furthest = std::max(furthest, std::abs(by) / s[i]);
            s[i] = moved(s[i], by);
            x[i] = moved(x[i], d[i]);
        }
    }
    evaluate(at_);
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
    newton.solve(kFewSteps, a > kGentle ? kShortStep : 0);
    if (a > kGentle || !(newton.residual() <= kSolved)) {
        if (!newton.shows_ascent()) {
            const SimplexPoint hull = least_norm_on_simplex(cosines);
            if (squared_length(cosines, hull.weights) <= kNoAscent) return no_ascent(hull.weights);
        }
        for (double stage = kGentle; stage < a; stage *= kSteeper) {
            newton.become(stage);
            if (stage == kGentle) newton.solve(kMostSteps, kShortStep);
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
