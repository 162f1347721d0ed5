#include "common/conflict/simplex_qp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "common/conflict/pivoted_cholesky.h"
#include "common/conflict/small_matrix.h"
#include "common/invariant.h"

namespace detente {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// Pivots of the reduced, unit-diagonal matrix below this count as zero.
constexpr double kRankTolerance = 1e-13;
constexpr int kRefinements = 8;

// One solve: the current point and which of its coordinates may be positive.
class ActiveSet {
  public:
    // `linear` (t·h) may be empty; so may `start`, a point of the simplex.
    ActiveSet(const Gramian& g, std::span<const double> linear, std::span<const double> start)
        : g_(g), linear_(linear), n_(g.tasks()), alpha_(n_, 0.0) {
        if (!start.empty()) {
            alpha_.assign(start.begin(), start.end());
            for (std::size_t i = 0; i < n_; ++i) {
                if (alpha_[i] > 0) support_.push_back(i);
            }
            return;
        }
        std::size_t least = 0;
        for (std::size_t i = 1; i < n_; ++i) {
            if (g.at(i, i) < g.at(least, least)) least = i;
        }
        alpha_[least] = 1;
        support_.push_back(least);
    }

    void solve();
    const std::vector<double>& alpha() const { return alpha_; }
    std::size_t iterations() const { return iterations_; }
    bool unique() const;
    // d(αᵀGα) / d(t²) for a linear term t·h: the squared length of h's vector in the span of the
    // support's differences.
    double growth(std::span<const double> h) const;

  private:
    double slope(std::size_t i) const {  // (Gα + t·h)ᵢ
        double sum = linear_.empty() ? 0.0 : linear_[i];
        for (const std::size_t k : support_) sum += g_.at(i, k) * alpha_[k];
        return sum;
    }
    double rounding(std::size_t i) const {  // of slope(i)
        double sum = linear_.empty() ? 0.0 : std::abs(linear_[i]);
        for (const std::size_t k : support_) sum += std::abs(g_.at(i, k)) * alpha_[k];
        return 4 * kEpsilon * static_cast<double>(n_) * sum;
    }
    // αᵀGα, the slope every coordinate of the support has at its minimum; and its rounding.
    std::pair<double, double> level() const;
    std::optional<std::size_t> most_promising() const;
    bool settle();
    // Moves along `direction` (over support_), at most once its length; true if a bound stopped
    // it, and that coordinate has left the support.
    bool move(const std::vector<double>& direction, double length);
    std::size_t reference_of(const std::vector<std::size_t>& set) const;
    std::vector<double> reduced_matrix(const std::vector<std::size_t>& set,
                                       std::size_t reference) const;
    // Of the support's reduced matrix.
    const PivotedCholesky& factor_of_support(std::size_t reference) const;

    const Gramian& g_;
    std::span<const double> linear_;
    std::size_t n_;
    std::vector<double> alpha_;
    std::vector<std::size_t> support_;
    std::size_t iterations_ = 0;
    // The last one asked for, and of which support: as long as that stays it serves again.
    mutable std::optional<PivotedCholesky> factor_;
    mutable std::vector<std::size_t> factored_;
};

std::pair<double, double> ActiveSet::level() const {
    double sum = 0;
    double error = 0;
    for (const std::size_t k : support_) {
        sum += alpha_[k] * slope(k);
        error += alpha_[k] * rounding(k);
    }
    return {sum, error};
}

// The coordinate whose slope lies furthest below the level, measured in its own row's length, if
// any does by more than rounding.
std::optional<std::size_t> ActiveSet::most_promising() const {
    const auto [lambda, error] = level();
    std::optional<std::size_t> best;
    double best_gain = 0;
    for (std::size_t j = 0; j < n_; ++j) {
        if (std::find(support_.begin(), support_.end(), j) != support_.end()) continue;
        const double below = lambda - slope(j);
        if (below <= error + rounding(j)) continue;
        const double length = std::sqrt(std::max(g_.at(j, j), 0.0));
        const double gain = length > 0 ? below / length : std::numeric_limits<double>::infinity();
        if (gain > best_gain) {
            best_gain = gain;
            best = j;
        }
    }
    return best;
}

// The shortest row: differences to it lose least.
std::size_t ActiveSet::reference_of(const std::vector<std::size_t>& set) const {
    std::size_t reference = 0;
    for (std::size_t k = 1; k < set.size(); ++k) {
        if (g_.at(set[k], set[k]) < g_.at(set[reference], set[reference])) reference = k;
    }
    return reference;
}

// ⟨gᵢ − g_ref, gⱼ − g_ref⟩ over the set without the reference.
std::vector<double> ActiveSet::reduced_matrix(const std::vector<std::size_t>& set,
                                              std::size_t reference) const {
    std::vector<double> matrix;
    matrix.reserve((set.size() - 1) * (set.size() - 1));
    const std::size_t r = set[reference];
    for (const std::size_t i : set) {
        if (i == r) continue;
        for (const std::size_t j : set) {
            if (j == r) continue;
            matrix.push_back((g_.at(i, j) - g_.at(i, r)) - (g_.at(j, r) - g_.at(r, r)));
        }
    }
    return matrix;
}

const PivotedCholesky& ActiveSet::factor_of_support(std::size_t reference) const {
    if (!factor_ || factored_ != support_) {
        factor_.emplace(reduced_matrix(support_, reference), support_.size() - 1, kRankTolerance);
        factored_ = support_;
    }
    return *factor_;
}

bool ActiveSet::move(const std::vector<double>& direction, double length) {
    std::optional<std::size_t> blocking;
    for (std::size_t k = 0; k < support_.size(); ++k) {
        if (direction[k] >= 0) continue;
        const double until = alpha_[support_[k]] / -direction[k];
        if (until < length) {
            length = until;
            blocking = k;
        }
    }
    for (std::size_t k = 0; k < support_.size(); ++k) {
        double& a = alpha_[support_[k]];
        a = std::max(0.0, a + length * direction[k]);
    }
    if (!blocking) return false;
    alpha_[support_[*blocking]] = 0;
    support_.erase(support_.begin() + static_cast<std::ptrdiff_t>(*blocking));
    return true;
}

// One attempt to reach the minimum over the support's affine hull: true when there (to rounding),
// false when a coordinate left the support on the way.
bool ActiveSet::settle() {
    const std::size_t size = support_.size();
    if (size < 2) return true;
    const std::size_t reference = reference_of(support_);
    const PivotedCholesky& factor = factor_of_support(reference);
    // Directions over the reduced coordinates, as directions over the support (sum zero).
    const auto widen = [&](const std::vector<double>& reduced, double sign) {
        std::vector<double> direction(size);
        double sum = 0;
        for (std::size_t k = 0, r = 0; k < size; ++k) {
            if (k == reference) continue;
            direction[k] = sign * reduced[r++];
            sum += direction[k];
        }
        direction[reference] = -sum;
        return direction;
    };
    const auto reduced_slopes = [&] {
        std::vector<double> slopes;
        const double base = slope(support_[reference]);
        for (std::size_t k = 0; k < size; ++k) {
            if (k != reference) slopes.push_back(slope(support_[k]) - base);
        }
        return slopes;
    };
    // Newton's step, then the same factor again on what rounding left.
    for (int round = 0; round < kRefinements; ++round) {
        const std::vector<double> step = factor.solve(reduced_slopes());
        if (move(widen(step, -1), 1)) return false;
        double relative = 0;
        for (std::size_t k = 0, r = 0; k < size; ++k) {
            if (k == reference) continue;
            relative = std::max(relative, std::abs(step[r++]) / (alpha_[support_[k]] + kEpsilon));
        }
        if (relative <= 4 * kEpsilon) break;
    }
    // Along what the factor left out the norm does not curve upward: if it slopes, go to the edge.
    const std::vector<double> slopes = reduced_slopes();
    for (std::size_t p = factor.rank(); p < size - 1; ++p) {
        const std::size_t r = factor.order()[p];
        const std::size_t k = r < reference ? r : r + 1;
        const double noise = rounding(support_[k]) + rounding(support_[reference]);
        if (std::abs(slopes[r]) <= noise) continue;
        if (move(widen(factor.null_direction(r), slopes[r] > 0 ? -1 : 1),
                 std::numeric_limits<double>::infinity())) {
            return false;
        }
    }
    return true;
}

void ActiveSet::solve() {
    // Each round strictly lowers the norm, so no support comes twice; the bound is for rounding.
    const std::size_t limit = 20 * n_ + 100;
    while (!settle()) {  // where it starts may not be the least of its own support
    }
    for (; iterations_ < limit; ++iterations_) {
        const std::optional<std::size_t> entering = most_promising();
        if (!entering) return;
        const std::vector<std::size_t> before = support_;
        support_.push_back(*entering);
        while (!settle()) {
        }
        // The newcomer left at once and nothing else did: what it promised was rounding.
        if (support_ == before) return;
        double sum = 0;
        for (const double a : alpha_) sum += a;
        for (double& a : alpha_) a /= sum;
    }
}

// Whether the face on which the minimum lies (all coordinates whose slope is the level) has
// independent corners.
bool ActiveSet::unique() const {
    const double lambda = level().first;
    const double largest = largest_entry(g_);
    std::vector<std::size_t> face;
    for (std::size_t j = 0; j < n_; ++j) {
        const double tolerance = 1e-10 * std::sqrt(std::max(g_.at(j, j), 0.0) * largest);
        if (alpha_[j] > 0 || slope(j) - lambda <= tolerance) face.push_back(j);
    }
    const PivotedCholesky factor(reduced_matrix(face, reference_of(face)), face.size() - 1, 1e-10);
    return factor.rank() == face.size() - 1;
}

double ActiveSet::growth(std::span<const double> h) const {
    if (support_.size() < 2) return 0;
    const std::size_t reference = reference_of(support_);
    std::vector<double> slopes;
    for (std::size_t k = 0; k < support_.size(); ++k) {
        if (k != reference) slopes.push_back(h[support_[k]] - h[support_[reference]]);
    }
    return std::max(0.0, dot(factor_of_support(reference).solve(slopes), slopes));
}

// For each task the first one with an identical gradient, as far as G can tell.
std::vector<std::size_t> first_of_each_kind(const Gramian& g) {
    const std::size_t n = g.tasks();
    std::vector<std::size_t> first(n);
    const auto same = [&](std::size_t i, std::size_t j) {
        if (g.at(i, i) != g.at(i, j) || g.at(j, j) != g.at(i, j)) return false;
        for (std::size_t k = 0; k < n; ++k) {
            if (g.at(i, k) != g.at(j, k)) return false;
        }
        return true;
    };
    for (std::size_t i = 0; i < n; ++i) {
        first[i] = i;
        for (std::size_t j = 0; j < i; ++j) {
            if (first[j] == j && same(i, j)) {
                first[i] = j;
                break;
            }
        }
    }
    return first;
}

}  // namespace

SimplexPoint least_norm_on_simplex(const Gramian& gramian) {
    return least_on_simplex(gramian, {}, 0);
}

SimplexPoint least_on_simplex(const Gramian& gramian, std::span<const double> h, double t,
                              std::span<const double> start) {
    const std::size_t n = gramian.tasks();
    invariant(n > 0, "the least norm is that of at least one gradient");
    const std::vector<std::size_t> first = first_of_each_kind(gramian);
    std::vector<std::size_t> kinds;
    std::vector<std::size_t> members(n, 0);
    for (std::size_t i = 0; i < n; ++i) {
        if (first[i] == i) kinds.push_back(i);
        ++members[first[i]];
    }
    Gramian reduced(kinds.size());
    std::vector<double> kind_h;
    std::vector<double> linear;
    std::vector<double> kind_start(start.empty() ? 0 : kinds.size(), 0.0);
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        for (std::size_t j = 0; j < kinds.size(); ++j) {
            reduced.at(i, j) = gramian.at(kinds[i], kinds[j]);
        }
        if (h.empty()) continue;
        kind_h.push_back(h[kinds[i]]);
        linear.push_back(t * h[kinds[i]]);
    }
    for (std::size_t k = 0; k < kind_start.size(); ++k) {
        for (std::size_t i = 0; i < n; ++i) kind_start[k] += first[i] == kinds[k] ? start[i] : 0.0;
    }
    ActiveSet set(reduced, linear, kind_start);
    set.solve();
    SimplexPoint point;
    point.iterations = set.iterations();
    if (h.empty()) {
        point.unique = set.unique();
    } else {
        point.growth = set.growth(kind_h);
    }
    point.weights.assign(n, 0.0);
    for (std::size_t k = 0; k < kinds.size(); ++k) {
        const double share = set.alpha()[k] / static_cast<double>(members[kinds[k]]);
        if (share > 0 && members[kinds[k]] > 1) point.unique = false;
        for (std::size_t i = 0; i < n; ++i) {
            if (first[i] == kinds[k]) point.weights[i] = share;
        }
    }
    point.kkt_residual = simplex_kkt_residual(gramian, point.weights, h, t);
    return point;
}

double simplex_kkt_residual(const Gramian& gramian, std::span<const double> weights,
                            std::span<const double> h, double t) {
    const std::size_t n = gramian.tasks();
    std::vector<double> slopes = times(gramian, weights);
    for (std::size_t i = 0; i < h.size(); ++i) slopes[i] += t * h[i];
    const double lambda = dot(slopes, weights);
    double sum = 0;
    for (const double w : weights) sum += w;
    const double largest = largest_entry(gramian) * std::max(1.0, t);
    const double unit = largest > 0 ? largest : 1.0;
    double worst = std::abs(sum - 1);
    for (std::size_t i = 0; i < n; ++i) {
        worst = std::max(worst, -weights[i]);
        worst = std::max(worst, (lambda - slopes[i]) / unit);
        worst = std::max(worst, std::abs(weights[i] * (slopes[i] - lambda)) / unit);
    }
    return worst;
}

}  // namespace detente
