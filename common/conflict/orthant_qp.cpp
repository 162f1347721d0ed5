#include "common/conflict/orthant_qp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "common/conflict/small_matrix.h"
#include "common/conflict/triangular.h"

namespace detente {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// Pivots of the unit-diagonal factor up to this count as zero.
constexpr double kRankTolerance = 1e-14;
constexpr int kRefinements = 20;
// Pivots from here on leave no doubt of the signs that follow from them.
constexpr double kWellApart = 1e-8;
constexpr int kPatience = 3;
// Of bᵀGb: what rounding may add to vᵀGv in a round.
constexpr double kRise = 1e-6;
constexpr std::size_t kTile = 8;

using Flags = std::vector<char>;

// Unknowns are xᵢ = (vᵢ − bᵢ)·‖gᵢ‖, so that rows of any length count alike.
class ConeSet {
  public:
    explicit ConeSet(const Gramian& g)
        : n_(g.tasks()),
          stride_(padded_stride(n_)),
          g_(g),
          scale_(n_, 0.0),
          cosines_(n_ * n_),
          x_(n_),
          slopes_(n_),
          noise_(n_),
          inside_(n_),
          barred_(n_),
          factor_(n_ * stride_, 0.0),
          inverse_(n_) {
        for (std::size_t i = 0; i < n_; ++i) {
            if (g.at(i, i) > 0) scale_[i] = 1.0 / std::sqrt(g.at(i, i));
        }
        for (std::size_t i = 0; i < n_; ++i) {
            for (std::size_t j = 0; j < n_; ++j) {
                cosines_[i * n_ + j] = i == j ? 1.0 : g.at(i, j) * scale_[i] * scale_[j];
            }
        }
    }

    // One program after the other.
    OrthantPoint solve(std::span<const double> lower);

  private:
    double cosine(std::size_t i, std::size_t j) const { return cosines_[i * n_ + j]; }
    double v(std::size_t i) const { return lower_[i] + x_[i] * scale_[i]; }
    // ⟨gᵢ, vᵀJ⟩/‖gᵢ‖ for every row, and the rounding in it; nothing where v is as it was.
    void update_slopes();
    template <std::size_t kColumns>
    void add_rows(std::size_t first);
    std::optional<std::size_t> most_promising() const;
    // Where to begin: at the least itself, as far as it can be told (true), or at x = 0.
    bool guess();
    bool take_all(const Flags& wanted);
    std::size_t exchange(Flags& wanted) const;
    // Takes task j into the support: false if it depends on the rows there and nothing could give
    // way to it.
    bool enter(std::size_t j);
    bool append(std::size_t j, std::vector<double>& row, double& pivot) const;
    void push(std::size_t j, const std::vector<double>& row, double pivot);
    void leave(std::size_t place);
    // `rounds_done`: 1 where x is a Newton step's outcome over this support already.
    bool settle(int rounds_done = 0);
    // Takes row j in, and all that follows from it. False, and all is as it was: it depends on the
    // support, or with it rounding would decide.
    bool go_on_with(std::size_t j);
    void restore(const std::vector<double>& x, const std::vector<std::size_t>& support);
    // vᵀGv.
    double square();
    // Back to x = 0.
    void leave_all();
    bool move(const std::vector<double>& direction, double length);
    std::vector<double> solved(std::vector<double> right) const;

    std::size_t n_;
    std::size_t stride_;
    const Gramian& g_;
    std::span<const double> lower_;
    std::vector<double> scale_;  // 1/‖gᵢ‖, 0 for zero rows
    std::vector<double> cosines_;
    std::vector<double> x_;       // ⪰ 0
    std::vector<double> slopes_;  // of xᵢ
    std::vector<double> noise_;
    std::vector<std::pair<const double*, double>> weighted_;  // rows of G with their v, where not 0
    double allowed_ = 0;    // of which vᵀGv may rise in a round, and be rounding
    bool current_ = false;  // slopes_ and noise_ are of the present x_
    std::vector<std::size_t> support_;
    Flags inside_;
    Flags barred_;
    std::vector<double> factor_;   // upper (triangular.h), of the support's cosines
    std::vector<double> inverse_;  // of its diagonal
};

void ConeSet::update_slopes() {
    if (current_) return;
    current_ = true;
    weighted_.clear();
    for (std::size_t k = 0; k < n_; ++k) {
        if (v(k) != 0) weighted_.emplace_back(g_.entries().data() + k * n_, v(k));
    }
    std::size_t first = 0;
    for (; first + kTile <= n_; first += kTile) add_rows<kTile>(first);
    for (; first < n_; ++first) add_rows<1>(first);
}

// Columns from `first` on, whose sums stay in registers, each in the order of the rows.
template <std::size_t kColumns>
void ConeSet::add_rows(std::size_t first) {
    double slopes[kColumns] = {};
    double noise[kColumns] = {};
    for (const auto& [row, weight] : weighted_) {
        for (std::size_t l = 0; l < kColumns; ++l) {
            const double term = row[first + l] * weight;
            slopes[l] += term;
            noise[l] += std::abs(term);
        }
    }
    for (std::size_t l = 0; l < kColumns; ++l) {
        const std::size_t i = first + l;
        slopes_[i] = slopes[l] * scale_[i];
        noise_[i] = noise[l] * (2 * kEpsilon * static_cast<double>(n_) * scale_[i]);
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
    solve_lower(factor_.data(), size, stride_, inverse_.data(), row.data());
    pivot = 1;
    for (const double entry : row) pivot -= entry * entry;
    return pivot > kRankTolerance;
}

void ConeSet::push(std::size_t j, const std::vector<double>& row, double pivot) {
    const std::size_t size = support_.size();
    for (std::size_t k = 0; k < size; ++k) factor_[k * stride_ + size] = row[k];
    factor_[size * stride_ + size] = std::sqrt(pivot);
    inverse_[size] = 1 / std::sqrt(pivot);
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

std::vector<double> ConeSet::solved(std::vector<double> right) const {
    solve_lower(factor_.data(), right.size(), stride_, inverse_.data(), right.data());
    solve_upper(factor_.data(), right.size(), stride_, inverse_.data(), right.data());
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
bool ConeSet::settle(int rounds_done) {
    std::vector<double> before;
    double least = std::numeric_limits<double>::infinity();
    for (int round = rounds_done; round < kRefinements && !support_.empty(); ++round) {
        update_slopes();
        std::vector<double> step(support_.size());
        double worst = 0;
        for (std::size_t k = 0; k < support_.size(); ++k) {
            step[k] = -slopes_[support_[k]];
            worst = std::max(worst, std::abs(step[k]) - noise_[support_[k]] / 8);
        }
        if (round > 0 && worst <= 0) break;
        // A factor as rough as the rounding in it leads away.
        if (round > 1 && worst > least) {
            x_ = before;
            current_ = false;
            break;
        }
        if (round > 0) least = worst;
        if (round > 0) before = x_;
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
        solve_upper(factor_.data(), direction.size(), stride_, inverse_.data(), direction.data());
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
bool ConeSet::take_all(const Flags& wanted) {
    leave_all();
    for (std::size_t j = 0; j < n_; ++j) {
        if (!wanted[j]) continue;
        support_.push_back(j);
        inside_[j] = true;
    }
    const std::size_t size = support_.size();
    for (std::size_t i = 0; i < size; ++i) {
        const double* row = cosines_.data() + support_[i] * n_;
        for (std::size_t j = i; j < size; ++j) factor_[i * stride_ + j] = row[support_[j]];
    }
    // What is left to solve for goes along as one more column.
    update_slopes();
    for (std::size_t k = 0; k < size; ++k) factor_[k * stride_ + size] = -slopes_[support_[k]];
    if (!factor_upper(factor_.data(), size, 1, stride_, kWellApart, inverse_.data())) return false;
    std::vector<double> step(size);
    for (std::size_t k = 0; k < size; ++k) step[k] = factor_[k * stride_ + size];
    solve_upper(factor_.data(), size, stride_, inverse_.data(), step.data());
    for (std::size_t k = 0; k < size; ++k) x_[support_[k]] = step[k];
    current_ = false;
    update_slopes();
    return true;
}

// Turns over what is on the wrong side, and says how many are.
std::size_t ConeSet::exchange(Flags& wanted) const {
    std::size_t wrong = 0;
    for (std::size_t j = 0; j < n_; ++j) {
        if (inside_[j] ? x_[j] >= 0 : slopes_[j] >= -noise_[j]) continue;
        wanted[j] = wanted[j] == 0 ? 1 : 0;
        ++wrong;
    }
    return wrong;
}

// Exchanges between support and rest all rows at a time that are on the wrong side (Júdice and
// Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
// complementarity problems", 1994), which takes a few rounds where one row after the other takes as
// many as there are. It need not come to an end, and where rows nearly depend on each other
// rounding would decide: then it is given up, and rows enter one by one from x = 0.
bool ConeSet::guess() {
    Flags wanted(n_, false);
    std::size_t fewest = n_ + 1;
    int patience = kPatience;
    while (take_all(wanted)) {
        const std::size_t wrong = exchange(wanted);
        if (wrong == 0) return true;
        if (wrong < fewest) {
            fewest = wrong;
            patience = kPatience;
        } else if (--patience == 0) {
            break;
        }
    }
    leave_all();
    return false;
}

void ConeSet::leave_all() {
    support_.clear();
    inside_.assign(n_, false);
    if (std::any_of(x_.begin(), x_.end(), [](double x) { return x != 0; })) {
        std::fill(x_.begin(), x_.end(), 0.0);
        current_ = false;
    }
}

double ConeSet::square() {
    update_slopes();
    double sum = 0;
    for (std::size_t i = 0; i < n_; ++i) {
        if (scale_[i] > 0) sum += v(i) * (slopes_[i] / scale_[i]);
    }
    return sum;
}

void ConeSet::restore(const std::vector<double>& x, const std::vector<std::size_t>& support) {
    support_.clear();
    inside_.assign(n_, false);
    std::vector<double> row;
    double pivot = 0;
    for (const std::size_t j : support) {
        append(j, row, pivot);
        push(j, row, std::max(pivot, kRankTolerance));
    }
    x_ = x;
    current_ = false;
}

bool ConeSet::go_on_with(std::size_t j) {
    const std::vector<double> x = x_;
    const std::vector<std::size_t> support = support_;
    const double before = square();
    bool lower = enter(j);
    while (lower && !settle()) {
    }
    // If it left at once, what it promised was rounding.
    lower = lower && inside_[j] && square() <= before + allowed_;
    if (!lower) restore(x, support);
    return lower;
}

OrthantPoint ConeSet::solve(std::span<const double> lower) {
    lower_ = lower;
    barred_.assign(n_, false);
    OrthantPoint point;
    leave_all();
    current_ = false;
    const double at_bound = square();
    allowed_ = kRise * std::abs(at_bound);
    for (std::size_t i = 0; i < n_; ++i) {
        if (scale_[i] > 0) allowed_ += std::abs(lower_[i]) * noise_[i] / scale_[i];
    }
    const int rounds_done = guess() ? 1 : 0;
    while (!settle(rounds_done)) {
    }
    if (square() > at_bound + allowed_) leave_all();
    // Each round lowers the norm, so no support comes twice; the bound is for rounding.
    const std::size_t limit = 20 * n_ + 100;
    for (; point.iterations < limit; ++point.iterations) {
        update_slopes();
        const std::optional<std::size_t> entering = most_promising();
        if (!entering) break;
        barred_[*entering] = go_on_with(*entering) ? 0 : 1;
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
    return ConeSet(gramian).solve(lower);
}

std::vector<OrthantPoint> least_norms_above_units(const Gramian& gramian) {
    ConeSet set(gramian);
    std::vector<OrthantPoint> points;
    std::vector<double> lower(gramian.tasks(), 0.0);
    for (double& unit : lower) {
        unit = 1;
        points.push_back(set.solve(lower));
        unit = 0;
    }
    return points;
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
