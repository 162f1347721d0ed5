#include "common/conflict/simplex_qp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
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
// Slopes this small a part of their bound on rounding are nothing but rounding.
constexpr double kRoundingShare = 1.0 / 16;
constexpr int kPatience = 3;

// One solve: the current point and which of its coordinates may be positive.
class ActiveSet {
  public:
    explicit ActiveSet(const Gramian& g)
        : g_(g), n_(g.tasks()), alpha_(n_, 0.0), slopes_(n_), noise_(n_), inside_(n_, false) {
        std::size_t least = 0;
        for (std::size_t i = 1; i < n_; ++i) {
            if (g.at(i, i) < g.at(least, least)) least = i;
        }
        alpha_[least] = 1;
        support_.push_back(least);
        inside_[least] = true;
    }

    // From where the last one ended; `linear` is t·h, or empty.
    void solve(std::span<const double> linear);
    const std::vector<double>& alpha() const { return alpha_; }
    std::size_t iterations() const { return iterations_; }
    bool unique() const;
    // d(αᵀGα) / d(t²) for a linear term t·h: the squared length of h's vector in the span of the
    // support's differences.
    double growth(std::span<const double> h);

  private:
    // (Gα + t·h)ᵢ for every i, and the rounding in it; nothing where α is as it was.
    void update_slopes();
    // Of the slope along eₖ − e_ref, which the sum allows.
    double noise_beside(std::size_t k, std::size_t reference) const {
        return noise_[support_[k]] + noise_[support_[reference]];
    }
    // αᵀGα, the slope every coordinate of the support has at its minimum; and its rounding.
    std::pair<double, double> level() const;
    std::optional<std::size_t> most_promising() const;
    // Where to go on: at the least itself, as far as it can be told, or from where it is.
    void guess();
    bool take_all(const std::vector<std::size_t>& wanted);
    std::size_t exchange(std::vector<std::size_t>& wanted) const;
    bool settle();
    // Moves along `direction` (over support_), at most once its length; true if a bound stopped
    // it, and that coordinate has left the support.
    bool move(const std::vector<double>& direction, double length);
    std::size_t reference_of(const std::vector<std::size_t>& set) const;
    std::vector<double> reduced_matrix(const std::vector<std::size_t>& set,
                                       std::size_t reference) const;
    // Of the support's reduced matrix.
    const PivotedCholesky& factor_of_support(std::size_t reference);
    // A direction over the reduced coordinates, as one over the support (sum zero).
    std::vector<double> widened(const std::vector<double>& reduced, std::size_t reference,
                                double sign) const;
    std::vector<double> reduced_slopes(std::size_t reference) const;

    const Gramian& g_;
    std::span<const double> linear_;
    std::size_t n_;
    std::vector<double> alpha_;
    std::vector<double> slopes_;
    std::vector<double> noise_;
    bool current_ = false;  // slopes_ and noise_ are of the present alpha_
    std::vector<std::size_t> support_;
    std::vector<bool> inside_;
    std::size_t iterations_ = 0;
    // The last one asked for, and of which support: as long as that stays it serves again.
    std::optional<PivotedCholesky> factor_;
    std::vector<std::size_t> factored_;
};

void ActiveSet::update_slopes() {
    if (current_) return;
    current_ = true;
    for (std::size_t i = 0; i < n_; ++i) {
        slopes_[i] = linear_.empty() ? 0.0 : linear_[i];
        noise_[i] = std::abs(slopes_[i]);
    }
    for (const std::size_t k : support_) {
        const double weight = alpha_[k];
        const double* row = g_.entries().data() + k * n_;
        for (std::size_t i = 0; i < n_; ++i) {
            const double term = row[i] * weight;
            slopes_[i] += term;
            noise_[i] += std::abs(term);
        }
    }
    for (double& noise : noise_) noise *= 4 * kEpsilon * static_cast<double>(n_);
}

std::pair<double, double> ActiveSet::level() const {
    double sum = 0;
    double error = 0;
    for (const std::size_t k : support_) {
        sum += alpha_[k] * slopes_[k];
        error += alpha_[k] * noise_[k];
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
        if (inside_[j]) continue;
        const double below = lambda - slopes_[j];
        if (below <= error + noise_[j]) continue;
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

const PivotedCholesky& ActiveSet::factor_of_support(std::size_t reference) {
    if (!factor_ || factored_ != support_) {
        factor_.emplace(reduced_matrix(support_, reference), support_.size() - 1, kRankTolerance);
        factored_ = support_;
    }
    return *factor_;
}

bool ActiveSet::move(const std::vector<double>& direction, double length) {
    current_ = false;
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
    inside_[support_[*blocking]] = false;
    support_.erase(support_.begin() + static_cast<std::ptrdiff_t>(*blocking));
    return true;
}

std::vector<double> ActiveSet::widened(const std::vector<double>& reduced, std::size_t reference,
                                       double sign) const {
    std::vector<double> direction(support_.size());
    double sum = 0;
    for (std::size_t k = 0, r = 0; k < support_.size(); ++k) {
        if (k == reference) continue;
        direction[k] = sign * reduced[r++];
        sum += direction[k];
    }
    direction[reference] = -sum;
    return direction;
}

std::vector<double> ActiveSet::reduced_slopes(std::size_t reference) const {
    std::vector<double> slopes;
    slopes.reserve(support_.size());
    const double base = slopes_[support_[reference]];
    for (std::size_t k = 0; k < support_.size(); ++k) {
        if (k != reference) slopes.push_back(slopes_[support_[k]] - base);
    }
    return slopes;
}

// One attempt to reach the minimum over the support's affine hull: true when there (to rounding),
// false when a coordinate left the support on the way.
bool ActiveSet::settle() {
    const std::size_t size = support_.size();
    if (size < 2) return true;
    const std::size_t reference = reference_of(support_);
    const PivotedCholesky& factor = factor_of_support(reference);
    // Newton's step, then the same factor again on what rounding left.
    for (int round = 0; round < kRefinements; ++round) {
        update_slopes();
        const std::vector<double> slopes = reduced_slopes(reference);
        bool rounding_only = round > 0;
        for (std::size_t k = 0, r = 0; k < size && rounding_only; ++k) {
            if (k == reference) continue;
            rounding_only = std::abs(slopes[r++]) <= kRoundingShare * noise_beside(k, reference);
        }
        if (rounding_only) break;
        const std::vector<double> step = factor.solve(slopes);
        if (move(widened(step, reference, -1), 1)) return false;
        double relative = 0;
        for (std::size_t k = 0, r = 0; k < size; ++k) {
            if (k == reference) continue;
            relative = std::max(relative, std::abs(step[r++]) / (alpha_[support_[k]] + kEpsilon));
        }
        if (relative <= 4 * kEpsilon) break;
    }
    if (factor.rank() == size - 1) return true;
    // Along what the factor left out the norm does not curve upward: if it slopes, go to the edge.
    update_slopes();
    const std::vector<double> slopes = reduced_slopes(reference);
    for (std::size_t p = factor.rank(); p < size - 1; ++p) {
        const std::size_t r = factor.order()[p];
        const std::size_t k = r < reference ? r : r + 1;
        if (std::abs(slopes[r]) <= noise_beside(k, reference)) continue;
        if (move(widened(factor.null_direction(r), reference, slopes[r] > 0 ? -1 : 1),
                 std::numeric_limits<double>::infinity())) {
            return false;
        }
    }
    return true;
}

// The support as it is wanted, and over its affine hull the least of all α, below zero or not;
// false where its rows are not well apart.
bool ActiveSet::take_all(const std::vector<std::size_t>& wanted) {
    support_ = wanted;
    inside_.assign(n_, false);
    for (const std::size_t j : support_) inside_[j] = true;
    std::fill(alpha_.begin(), alpha_.end(), 0.0);
    const std::size_t reference = reference_of(support_);
    alpha_[support_[reference]] = 1;
    current_ = false;
    update_slopes();
    if (support_.size() < 2) return true;
    const PivotedCholesky& factor = factor_of_support(reference);
    if (!factor.well_apart()) return false;
    const std::vector<double> step =
        widened(factor.solve(reduced_slopes(reference)), reference, -1);
    for (std::size_t k = 0; k < step.size(); ++k) alpha_[support_[k]] += step[k];
    current_ = false;
    update_slopes();
    return true;
}

// Turns over what is on the wrong side, and says how many are.
std::size_t ActiveSet::exchange(std::vector<std::size_t>& wanted) const {
    const auto [lambda, error] = level();
    std::size_t wrong = 0;
    wanted.clear();
    for (const std::size_t j : support_) {
        if (alpha_[j] >= 0) wanted.push_back(j);
    }
    wrong = support_.size() - wanted.size();
    for (std::size_t j = 0; j < n_; ++j) {
        if (inside_[j] || lambda - slopes_[j] <= std::abs(error) + noise_[j]) continue;
        wanted.push_back(j);
        ++wrong;
    }
    return wrong;
}

// Exchanges between support and rest all rows at a time that are on the wrong side, as ConeSet
// (orthant_qp.cpp) does: a few rounds, where one row after the other takes as many as there are. It
// need not come to an end; then it is given up, and rows enter one by one from where it began.
void ActiveSet::guess() {
    const std::vector<std::size_t> support = support_;
    const std::vector<double> alpha = alpha_;
    std::vector<std::size_t> wanted = support_;
    if (wanted.size() == 1) {
        wanted.resize(n_);
        std::iota(wanted.begin(), wanted.end(), std::size_t{0});
    }
    std::size_t fewest = n_ + 1;
    int patience = kPatience;
    while (take_all(wanted)) {
        const std::size_t wrong = exchange(wanted);
        if (wrong == 0) return;
        if (wanted.empty()) break;
        if (wrong < fewest) {
            fewest = wrong;
            patience = kPatience;
        } else if (--patience == 0) {
            break;
        }
    }
    support_ = support;
    alpha_ = alpha;
    inside_.assign(n_, false);
    for (const std::size_t j : support_) inside_[j] = true;
    current_ = false;
}

void ActiveSet::solve(std::span<const double> linear) {
    linear_ = linear;
    current_ = false;
    iterations_ = 0;
    // Each round strictly lowers the norm, so no support comes twice; the bound is for rounding.
    const std::size_t limit = 20 * n_ + 100;
    guess();
    while (!settle()) {  // where it starts may not be the least of its own support
    }
    for (; iterations_ < limit; ++iterations_) {
        update_slopes();
        const std::optional<std::size_t> entering = most_promising();
        if (!entering) break;
        const std::vector<std::size_t> before = support_;
        support_.push_back(*entering);
        inside_[*entering] = true;
        while (!settle()) {
        }
        // The newcomer left at once and nothing else did: what it promised was rounding.
        if (support_ == before) break;
        double sum = 0;
        for (const double a : alpha_) sum += a;
        for (double& a : alpha_) a /= sum;
        current_ = false;
    }
    update_slopes();
}

// Whether the face on which the minimum lies (all coordinates whose slope is the level) has
// independent corners.
bool ActiveSet::unique() const {
    const double lambda = level().first;
    const double largest = largest_entry(g_);
    std::vector<std::size_t> face;
    for (std::size_t j = 0; j < n_; ++j) {
        const double tolerance = 1e-10 * std::sqrt(std::max(g_.at(j, j), 0.0) * largest);
        if (alpha_[j] > 0 || slopes_[j] - lambda <= tolerance) face.push_back(j);
    }
    const PivotedCholesky factor(reduced_matrix(face, reference_of(face)), face.size() - 1, 1e-10);
    return factor.rank() == face.size() - 1;
}

double ActiveSet::growth(std::span<const double> h) {
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
    return SimplexProgram(gramian).least(0);
}

// Of identical tasks the first stands for all.
struct SimplexProgram::State {
    State(const Gramian& gramian, std::span<const double> linear)
        : g(gramian),
          h(linear.begin(), linear.end()),
          first(first_of_each_kind(g)),
          kinds(kinds_of(first)),
          reduced(reduced_to(g, kinds)),
          set(reduced) {
        for (const std::size_t kind : kinds) {
            if (!h.empty()) kind_h.push_back(h[kind]);
        }
    }
    static std::vector<std::size_t> kinds_of(const std::vector<std::size_t>& first) {
        std::vector<std::size_t> kinds;
        for (std::size_t i = 0; i < first.size(); ++i) {
            if (first[i] == i) kinds.push_back(i);
        }
        return kinds;
    }
    static Gramian reduced_to(const Gramian& g, const std::vector<std::size_t>& kinds) {
        if (kinds.size() == g.tasks()) return g;
        Gramian out(kinds.size());
        for (std::size_t i = 0; i < kinds.size(); ++i) {
            for (std::size_t j = 0; j < kinds.size(); ++j) out.at(i, j) = g.at(kinds[i], kinds[j]);
        }
        return out;
    }

    const Gramian& g;
    std::vector<double> h;
    std::vector<std::size_t> first;
    std::vector<std::size_t> kinds;
    Gramian reduced;
    std::vector<double> kind_h;
    ActiveSet set;
};

SimplexProgram::SimplexProgram(const Gramian& gramian, std::span<const double> h) {
    invariant(gramian.tasks() > 0, "the least norm is that of at least one gradient");
    state_ = std::make_unique<State>(gramian, h);
}
SimplexProgram::~SimplexProgram() = default;

SimplexPoint SimplexProgram::least(double t) {
    State& s = *state_;
    std::vector<double> linear = s.kind_h;
    for (double& x : linear) x *= t;
    s.set.solve(linear);
    SimplexPoint point;
    point.iterations = s.set.iterations();
    if (s.h.empty()) {
        point.unique = s.set.unique();
    } else {
        point.growth = s.set.growth(s.kind_h);
    }
    std::vector<std::size_t> members(s.first.size(), 0);
    for (const std::size_t kind : s.first) ++members[kind];
    point.weights.assign(s.first.size(), 0.0);
    for (std::size_t k = 0; k < s.kinds.size(); ++k) {
        const std::size_t kind = s.kinds[k];
        const double share = s.set.alpha()[k] / static_cast<double>(members[kind]);
        if (members[kind] == 1) {
            point.weights[kind] = share;
            continue;
        }
        if (share > 0) point.unique = false;
        for (std::size_t i = kind; i < s.first.size(); ++i) {
            if (s.first[i] == kind) point.weights[i] = share;
        }
    }
    point.kkt_residual = simplex_kkt_residual(s.g, point.weights, s.h, t);
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
