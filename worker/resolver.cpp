#include "worker/resolver.h"

#include <algorithm>
#include <cmath>

#include "common/random.h"

namespace detente {

Result<Resolver> Resolver::create(const Job& job, std::size_t tasks) {
    auto aggregator = make_aggregator(job.aggregator);
    if (!aggregator) return aggregator.error();
    // A parameter written for another number of tasks is found now, not at the first step.
    Gramian unit(tasks);
    for (std::size_t i = 0; i < tasks; ++i) unit.at(i, i) = 1;
    const std::vector<double> ones(tasks, 1.0);
    AggregatorState state = (*aggregator)->initial_state(tasks);
    if (const auto tried = (*aggregator)->weights({&unit, ones, 0, &unit, ones}, state); !tried) {
        return fail(tried.error().code, "conflict: " + tried.error().text);
    }
    return Resolver(job, tasks, std::move(*aggregator));
}

void Resolver::prepare(GradientWork& work) const {
    work.aggregator = aggregator_;
    work.scope = scope_;
    work.space = space_;
}

// ‖combined gradient‖² = Σ wᵀGw over the groups of shared blocks + the tasks' own blocks as they
// are.
double Resolver::clip_factor(const GradientOutcome& outcome,
                             const std::vector<std::vector<double>>& weights) const {
    if (clip_norm_ <= 0) return 1;
    double norm_sq = 0;
    for (std::size_t group = 0; group < weights.size(); ++group) {
        const Gramian& gramian =
            outcome.groups.empty() ? outcome.gramian : outcome.groups[group].gramian;
        for (std::size_t i = 0; i < weights[group].size(); ++i) {
            for (std::size_t j = 0; j < weights[group].size(); ++j) {
                norm_sq += weights[group][i] * weights[group][j] * gramian.at(i, j);
            }
        }
    }
    for (const double own : outcome.exclusive_norms_sq) norm_sq += own;
    const double norm = std::sqrt(std::max(0.0, norm_sq));
    return norm > clip_norm_ ? clip_norm_ / norm : 1;
}

bool Resolver::still_serves(const Solved& solved, const Gramian& gramian) const {
    if (solved.steps == 0 || solved.steps >= every_) return false;
    double moved_sq = 0;
    double then_sq = 0;
    for (std::size_t i = 0; i < solved.gramian.size(); ++i) {
        const double moved = gramian.entries()[i] - solved.gramian[i];
        moved_sq += moved * moved;
        then_sq += solved.gramian[i] * solved.gramian[i];
    }
    // NaN is beyond any bound, and the method names its task.
    return std::sqrt(moved_sq) <= drift_ * std::sqrt(then_sq);
}

Result<std::vector<std::vector<double>>> Resolver::weights_of(const GradientOutcome& outcome,
                                                              std::uint64_t key) {
    const std::size_t groups = std::max<std::size_t>(1, outcome.groups.size());
    if (states_.size() != groups) {  // the first step, or restored under another conflict.scope
        states_.assign(groups, aggregator_->initial_state(tasks_));
        solved_.assign(every_ > 1 ? groups : 0, {});
    }
    std::vector<AggregatorState> states = states_;
    std::vector<Solved> solved = solved_;
    std::vector<std::vector<double>> weights;
    bool reused = every_ > 1;
    for (std::size_t group = 0; group < groups; ++group) {
        AggregatorInput input;
        input.gramian = &outcome.gramian;
        input.losses = outcome.losses;
        // The first group draws as the whole would.
        input.random_key = group == 0 ? key : random_key(key, Purpose::aggregator, {group});
        if (!outcome.groups.empty()) {
            input.gramian = &outcome.groups[group].gramian;
            input.cross = &outcome.groups[group].cross;
            input.excess = outcome.groups[group].excess;
        }
        if (every_ > 1 && still_serves(solved[group], *input.gramian)) {
            ++solved[group].steps;
            weights.push_back(solved[group].weights);
            continue;
        }
        reused = false;
        auto output = aggregator_->weights(input, states[group]);
        if (!output) return output.error();
        if (every_ > 1) {
            const auto entries = input.gramian->entries();
            solved[group] = {output->weights, {entries.begin(), entries.end()}, 1};
        }
        weights.push_back(std::move(output->weights));
    }
    states_ = std::move(states);
    solved_ = std::move(solved);
    reused_ = reused;
    return weights;
}

Result<CombineWork> Resolver::resolve(GradientOutcome&& outcome, std::uint64_t key) {
    // What the method does not see: blocks of one task.
    for (std::size_t task = 0; task < outcome.exclusive_norms_sq.size(); ++task) {
        if (std::isfinite(outcome.exclusive_norms_sq[task])) continue;
        return fail(ErrorCode::not_finite, "the gradient of task " + std::to_string(task) +
                                               " has NaN or Inf in a block of its own");
    }
    auto weights = weights_of(outcome, key);
    if (!weights) {
        return fail(weights.error().code,
                    "aggregator " + aggregator_->name() + ": " + weights.error().text);
    }
    CombineWork work;
    work.random_key = key;
    work.aggregator = aggregator_;
    work.gradients = std::move(outcome.gradients);
    if (aggregator_->needs().coordinates) {
        work.clip_norm = clip_norm_;
    } else {
        // The trunk's gradient, and with it the norm, is known only when the rows are combined.
        if (space_ == ConflictSpace::representation) {
            work.clip_norm = clip_norm_;
        } else {
            work.clip_factor = clip_factor(outcome, *weights);
        }
        work.weights = weights->front();
        if (weights->size() > 1) work.group_weights = std::move(*weights);
    }
    return work;
}

bool Resolver::remembers() const {
    return every_ > 1 || !aggregator_->initial_state(tasks_).values.empty();
}

MethodState Resolver::saved() const {
    MethodState saved;
    if (states_.empty() || !remembers()) return saved;
    saved.method = aggregator_->name();
    saved.groups = static_cast<std::uint32_t>(states_.size());
    for (std::size_t group = 0; group < states_.size(); ++group) {
        const auto add = [&saved](const std::vector<double>& values) {
            saved.values.insert(saved.values.end(), values.begin(), values.end());
        };
        add(states_[group].values);
        if (every_ == 1) continue;
        Solved solved = solved_[group];
        solved.weights.resize(tasks_);  // as long where there is none yet
        solved.gramian.resize(tasks_ * tasks_);
        add({static_cast<double>(solved.steps)});
        add(solved.weights);
        add(solved.gramian);
    }
    return saved;
}

Result<void> Resolver::restore(const MethodState& state) {
    if (state.groups == 0) return {};
    if (state.method != aggregator_->name()) {
        return fail(ErrorCode::bad_checkpoint, "the checkpoint has the state of conflict.method '" +
                                                   state.method + "', the job has '" +
                                                   aggregator_->name() + "'");
    }
    const std::size_t own = aggregator_->initial_state(tasks_).values.size();
    const std::size_t reuse = every_ == 1 ? 0 : 1 + tasks_ + tasks_ * tasks_;
    if (own + reuse == 0) return {};  // there is nothing it could go on from
    if (scope_ == ConflictScope::global && state.groups != 1) {
        return fail(ErrorCode::bad_checkpoint,
                    "the state of conflict.method '" + state.method + "' is of " +
                        std::to_string(state.groups) +
                        " groups: conflict.scope was another one; it is global now");
    }
    if (state.values.size() != state.groups * (own + reuse)) {
        return fail(ErrorCode::bad_checkpoint,
                    "the state of conflict.method '" + state.method + "' has " +
                        std::to_string(state.values.size()) + " values for " +
                        std::to_string(state.groups) + " groups, expected " +
                        std::to_string(own + reuse) +
                        " each: conflict.every or the method's parameters have changed");
    }
    std::vector<AggregatorState> states(state.groups);
    std::vector<Solved> solved(reuse == 0 ? 0 : state.groups);
    auto at = state.values.begin();
    const auto take = [&at](std::size_t count) {
        std::vector<double> values(at, at + static_cast<std::ptrdiff_t>(count));
        at += static_cast<std::ptrdiff_t>(count);
        return values;
    };
    for (std::size_t group = 0; group < state.groups; ++group) {
        states[group].values = take(own);
        if (reuse == 0) continue;
        const double steps = take(1).front();
        if (!(steps >= 0 && steps <= every_)) {
            return fail(ErrorCode::bad_checkpoint,
                        "the state of conflict.method '" + state.method +
                            "' says that weights have served " + std::to_string(steps) +
                            " steps; conflict.every is " + std::to_string(every_));
        }
        solved[group].steps = static_cast<std::uint32_t>(steps);
        solved[group].weights = take(tasks_);
        solved[group].gramian = take(tasks_ * tasks_);
    }
    states_ = std::move(states);
    solved_ = std::move(solved);
    return {};
}

}  // namespace detente
