#include "common/conflict/orthant_qp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "common/conflict/small_matrix.h"

namespace detente {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// Pivots of the unit-diagonal factor up to this count as zero.
constexpr double kRankTolerance = 1e-14;
constexpr int kRefinements = 20;
// Pivots from here on leave no doubt of the signs that follow from them.
constexpr double kWellApart = 1e-8;
constexpr int kPatience = 3;

// One solve. Unknowns are xᵢ = (vᵢ − bᵢ)·‖gᵢ‖, so that rows of any length count alike.
class ConeSet {
  public:
    ConeSet(const Gramian& g, std::span<const double> lower)
        : n_(g.tasks()),
          g_(g),
          lower_(lower),
          scale_(n_, 0.0),
          x_(n_, 0.0),
          slopes_(n_),
          noise_(n_),
          inside_(n_, false),
          barred_(n_, false),
          factor_(n_ * n_),
          transposed_(n_ * n_) {
        for (std::size_t i = 0; i < n_; ++i) {
            if (g.at(i, i) > 0) scale_[i] = 1.0 / std::sqrt(g.at(i, i));
        }
    }

    OrthantPoint solve();

  private:
    double cosine(std::size_t i, std::size_t j) const {
        return i == j ? 1.0 : g_.at(i, j) * scale_[i] * scale_[j];
    }
    double v(std::size_t i) const { return lower_[i] + x_[i] * scale_[i]; }
    // ⟨gᵢ, vᵀJ⟩/‖gᵢ‖ for every row, and the rounding in it; nothing where v is as it was.
    void update_slopes();
    std::optional<std::size_t> most_promising() const;
    // Where to begin: at the least itself, as far as it can be told, or at x = 0.
    void guess();
    bool take_all(const std::vector<bool>& wanted);
    std::size_t exchange(std::vector<bool>& wanted) const;
    // Takes task j into the support: false if it depends on the rows there and nothing could give
    // way to it.
    bool enter(std::size_t j);
    bool append(std::size_t j, std::vector<double>& row, double& pivot) const;
    void push(std::size_t j, const std::vector<double>& row, double pivot);
    void leave(std::size_t place);
    bool settle();
    bool move(const std::vector<double>& direction, double length);
    std::vector<double> solved(std::vector<double> right) const;
    void solve_lower(std::vector<double>& y) const;
    void solve_upper(std::vector<double>& y) const;

    std::size_t n_;
    const Gramian& g_;
    std::span<const double> lower_;
    std::vector<double> scale_;   // 1/‖gᵢ‖, 0 for zero rows
    std::vector<double> x_;       // ⪰ 0
    std::vector<double> slopes_;  // of xᵢ
    std::vector<double> noise_;
    bool current_ = false;  // slopes_ and noise_ are of the present x_
    std::vector<std::size_t> support_;
    std::vector<bool> inside_;
    std::vector<bool> barred_;
    std::vector<double> factor_;  // lower triangle of the support's cosines
    // The same, column by column: sums that run over rows go through it in step, each in its order.
    std::vector<double> transposed_;
};

void ConeSet::update_slopes() {
    if (current_) return;
    current_ = true;
    std::fill(slopes_.begin(), slopes_.end(), 0.0);
    std::fill(noise_.begin(), noise_.end(), 0.0);
    for (std::size_t k = 0; k < n_; ++k) {
        const double weight = v(k);
        if (weight == 0) continue;
        const double* row = g_.entries().data() + k * n_;
        for (std::size_t i = 0; i < n_; ++i) {
            const double term = row[i] * weight;
            slopes_[i] += term;
            noise_[i] += std::abs(term);
        }
    }
    for (std::size_t i = 0; i < n_; ++i) {
        slopes_[i] *= scale_[i];
        noise_[i] *= 2 * kEpsilon * static_cast<double>(n_) * scale_[i];
    }
}

std::optional<std::size_t> ConeSet::most_promising() const {
    std::optional<std::size_t> best;
    for (std::size_t j = 0; j < n_; ++j) {
        if (inside_[j] || barred_[j] || slopes_[j] >= -noise_[j]) continue;
        if (!best || slopes_[j] < slopes_[*best]) best = j;
    }
    return best;
}

// The factor's next row for j; true if the support stays independent with it.
bool ConeSet::append(std::size_t j, std::vector<double>& row, double& pivot) const {
    const std::size_t size = support_.size();
    row.resize(size);
    for (std::size_t k = 0; k < size; ++k) row[k] = cosine(j, support_[k]);
    solve_lower(row);
    pivot = 1;
    for (const double entry : row) pivot -= entry * entry;
    return pivot > kRankTolerance;
}

void ConeSet::push(std::size_t j, const std::vector<double>& row, double pivot) {
    double* place = factor_.data() + support_.size() * n_;
    std::copy(row.begin(), row.end(), place);
    place[support_.size()] = std::sqrt(pivot);
    for (std::size_t k = 0; k <= support_.size(); ++k) {
        transposed_[k * n_ + support_.size()] = place[k];
    }
    support_.push_back(j);
    inside_[j] = true;
}

void ConeSet::leave(std::size_t place) {
    const std::vector<std::size_t> rest(support_.begin() + static_cast<std::ptrdiff_t>(place) + 1,
                                        support_.end());
    for (std::size_t k = place; k < support_.size(); ++k) inside_[support_[k]] = false;
    x_[support_[place]] = 0;
    support_.resize(place);
    std::vector<double> row;
    double pivot = 0;
    for (const std::size_t j : rest) {
        append(j, row, pivot);
        push(j, row, std::max(pivot, kRankTolerance));
    }
}

void ConeSet::solve_lower(std::vector<double>& y) const {
    const std::size_t size = y.size();
    for (std::size_t j = 0; j < size; ++j) {
        const double* column = transposed_.data() + j * n_;
        const double known = y[j] /= column[j];
        for (std::size_t i = j + 1; i < size; ++i) y[i] -= column[i] * known;
    }
}

// Back substitution with the factor's transpose.
void ConeSet::solve_upper(std::vector<double>& y) const {
    for (std::size_t i = y.size(); i-- > 0;) {
        y[i] /= factor_[i * n_ + i];
        for (std::size_t j = 0; j < i; ++j) y[j] -= factor_[i * n_ + j] * y[i];
    }
}

std::vector<double> ConeSet::solved(std::vector<double> right) const {
    solve_lower(right);
    solve_upper(right);
    return right;
}

// Along `direction` (over the support), at most `length`; true if a bound stopped it, and that
// coordinate has left.
bool ConeSet::move(const std::vector<double>& direction, double length) {
    current_ = false;
    std::optional<std::size_t> blocking;
    for (std::size_t k = 0; k < support_.size(); ++k) {
        if (direction[k] >= 0) continue;
        const double until = x_[support_[k]] / -direction[k];
        if (until < length) {
            length = until;
            blocking = k;
        }
    }
    for (std::size_t k = 0; k < support_.size(); ++k) {
        double& x = x_[support_[k]];
        x = std::max(0.0, x + length * direction[k]);
    }
    if (blocking) leave(*blocking);
    return blocking.has_value();
}

// Newton's step over the support, then the same factor again on what rounding left. False when a
// coordinate left on the way.
bool ConeSet::settle() {
    for (int round = 0; round < kRefinements && !support_.empty(); ++round) {
        update_slopes();
        std::vector<double> step(support_.size());
        double worst = 0;
        for (std::size_t k = 0; k < support_.size(); ++k) {
            step[k] = -slopes_[support_[k]];
            worst = std::max(worst, std::abs(step[k]) - noise_[support_[k]] / 8);
        }
        if (round > 0 && worst <= 0) break;
        step = solved(std::move(step));
        if (move(step, 1)) return false;
        double relative = 0;
        for (std::size_t k = 0; k < step.size(); ++k) {
            relative = std::max(relative, std::abs(step[k]) / (x_[support_[k]] + kEpsilon));
        }
        if (relative <= 2 * kEpsilon) break;
    }
    return true;
}

bool ConeSet::enter(std::size_t j) {
    std::vector<double> row;
    double pivot = 0;
    while (!append(j, row, pivot)) {
        // gⱼ is a combination of the support's rows: along (−combination, 1) nothing curves, and j
        // gains what they lose until one of them is at its bound.
        std::vector<double> direction = row;
        solve_upper(direction);
        double length = std::numeric_limits<double>::infinity();
        std::size_t blocking = 0;
        for (std::size_t k = 0; k < support_.size(); ++k) {
            if (direction[k] <= 0) continue;
            const double until = x_[support_[k]] / direction[k];
            if (until < length) {
                length = until;
                blocking = k;
            }
        }
        if (!std::isfinite(length)) return false;
        for (std::size_t k = 0; k < support_.size(); ++k) {
            x_[support_[k]] = std::max(0.0, x_[support_[k]] - length * direction[k]);
        }
        x_[j] += length;
        current_ = false;
        leave(blocking);
    }
    push(j, row, pivot);
    return true;
}

// The support as it is wanted, and over it the least of all x; false where its rows are not well
// apart.
bool ConeSet::take_all(const std::vector<bool>& wanted) {
    support_.clear();
    inside_.assign(n_, false);
    std::fill(x_.begin(), x_.end(), 0.0);
    current_ = false;
    std::vector<double> row;
    double pivot = 0;
    for (std::size_t j = 0; j < n_; ++j) {
        if (!wanted[j]) continue;
        append(j, row, pivot);
        if (pivot < kWellApart) return false;
        push(j, row, pivot);
    }
    update_slopes();
    std::vector<double> step;
    for (const std::size_t j : support_) step.push_back(-slopes_[j]);
    step = solved(std::move(step));
    for (std::size_t k = 0; k < step.size(); ++k) x_[support_[k]] = step[k];
    current_ = false;
    update_slopes();
    return true;
}

// Turns over what is on the wrong side, and says how many are.
std::size_t ConeSet::exchange(std::vector<bool>& wanted) const {
    std::size_t wrong = 0;
    for (std::size_t j = 0; j < n_; ++j) {
        if (inside_[j] ? x_[j] >= 0 : slopes_[j] >= -noise_[j]) continue;
        wanted[j] = !wanted[j];
        ++wrong;
    }
    return wrong;
}

// Exchanges between support and rest all rows at a time that are on the wrong side (Júdice and
// Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
// complementarity problems", 1994), which takes a few rounds where one row after the other takes as
// many as there are. It need not come to an end, and where rows nearly depend on each other
// rounding would decide: then it is given up, and rows enter one by one from x = 0.
void ConeSet::guess() {
    std::vector<bool> wanted(n_, false);
    std::size_t fewest = n_ + 1;
    int patience = kPatience;
    while (take_all(wanted)) {
        const std::size_t wrong = exchange(wanted);
        if (wrong == 0) return;
        if (wrong < fewest) {
            fewest = wrong;
            patience = kPatience;
        } else if (--patience == 0) {
            break;
        }
    }
    take_all(std::vector<bool>(n_, false));
}

OrthantPoint ConeSet::solve() {
    OrthantPoint point;
    guess();
    while (!settle()) {
    }
    // Each round lowers the norm, so no support comes twice; the bound is for rounding.
    const std::size_t limit = 20 * n_ + 100;
    for (; point.iterations < limit; ++point.iterations) {
        update_slopes();
        const std::optional<std::size_t> entering = most_promising();
        if (!entering) break;
        if (!enter(*entering)) {
            barred_[*entering] = true;
            continue;
        }
        while (!settle()) {
        }
        // It left at once: what it promised was rounding.
        if (!inside_[*entering]) barred_[*entering] = true;
    }
    point.settled = point.iterations < limit;
    point.v.resize(n_);
    for (std::size_t i = 0; i < n_; ++i) point.v[i] = v(i);
    update_slopes();
    for (std::size_t j = 0; j < n_; ++j) {
        // Beyond what rounding could have made of an independent row.
        if (barred_[j] && slopes_[j] < -1e3 * noise_[j]) point.settled = false;
    }
    return point;
}

}  // namespace

OrthantPoint least_norm_above(const Gramian& gramian, std::span<const double> lower) {
    return ConeSet(gramian, lower).solve();
}

double orthant_kkt_residual(const Gramian& gramian, std::span<const double> lower,
                            std::span<const double> v) {
    const std::vector<double> slopes = times(gramian, v);
    const double largest = largest_entry(gramian);
    const double unit = largest > 0 ? largest : 1.0;
    double worst = 0;
    for (std::size_t i = 0; i < slopes.size(); ++i) {
        worst = std::max(worst, lower[i] - v[i]);
        worst = std::max(worst, -slopes[i] / unit);
        worst = std::max(worst, std::abs((v[i] - lower[i]) * slopes[i]) / unit);
    }
    return worst;
}

}  // namespace detente
