#include "worker/resolver.h"

#include <algorithm>
#include <cmath>

#include "common/conflict/members.h"
#include "common/conflict/methods.h"
#include "common/random.h"

namespace detente {
namespace {

// A method for some tasks knows them by their places among those.
Error of_group(const Error& error, const std::vector<std::size_t>& tasks) {
    std::string list;
    for (const std::size_t task : tasks) list += (list.empty() ? "" : ", ") + std::to_string(task);
    return fail(error.code, "among the tasks that update a group of shared blocks (" + list +
                                "; here numbered from 0): " + error.text);
}

}  // namespace

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

Result<const Resolver::ForMembers*> Resolver::method_for(TaskSet members) {
    const auto [at, fresh] = for_members_.try_emplace(members);
    if (fresh) {
        auto made = make_aggregator(detente::for_members(config_, members, tasks_));
        if (!made) return made.error();
        at->second = {std::move(*made), aggregator_->state_places(members, tasks_)};
    }
    return &at->second;
}

// A member's values are what they are where the members are alone.
Result<void> Resolver::begin_states(const GradientOutcome& outcome, std::size_t groups) {
    std::vector<AggregatorState> states(groups, aggregator_->initial_state(tasks_));
    for (std::size_t group = 0; group < outcome.groups.size(); ++group) {
        const TaskSet members = outcome.groups[group].members;
        const std::size_t count = indices_of(members, tasks_).size();
        if (count == tasks_ || count < 2 || states[group].values.empty()) continue;
        const auto own = method_for(members);
        if (!own) return own.error();
        const std::vector<double> values = aggregator_->initial_state(count).values;
        for (std::size_t k = 0; k < values.size(); ++k) {
            states[group].values[(*own)->places[k]] = values[k];
        }
    }
    states_ = std::move(states);
    solved_.assign(every_ > 1 ? groups : 0, {});
    return {};
}

Result<AggregatorOutput> Resolver::solve(const AggregatorInput& input, TaskSet members,
                                         AggregatorState& state) {
    const std::vector<std::size_t> indices = indices_of(members, tasks_);
    // Of a block's rows those that combine see only what is there.
    if (indices.size() == tasks_ || aggregator_->needs().coordinates) {
        return aggregator_->weights(input, state);
    }
    AggregatorOutput output;
    output.weights.assign(tasks_, 1.0);
    if (indices.size() < 2) return output;
    const auto own = method_for(members);
    if (!own) return own.error();
    const Gramian gramian = detente::for_members(*input.gramian, members);
    const Gramian cross =
        input.cross == nullptr ? Gramian() : detente::for_members(*input.cross, members);
    const std::vector<double> losses = detente::for_members(input.losses, members);
    const std::vector<double> excess = detente::for_members(input.excess, members);
    const AggregatorInput of_members{&gramian, losses, input.random_key,
                                     input.cross == nullptr ? nullptr : &cross, excess};
    AggregatorState inner;
    for (const std::size_t place : (*own)->places) inner.values.push_back(state.values[place]);
    auto found = (*own)->method->weights(of_members, inner);
    if (!found) return of_group(found.error(), indices);
    for (std::size_t k = 0; k < inner.values.size(); ++k) {
        state.values[(*own)->places[k]] = inner.values[k];
    }
    output = std::move(*found);
    output.weights = for_all(output.weights, members, tasks_, 1.0);
    return output;
}

Result<std::vector<std::vector<double>>> Resolver::weights_of(const GradientOutcome& outcome,
                                                              std::uint64_t key) {
    const std::size_t groups = std::max<std::size_t>(1, outcome.groups.size());
    if (states_.size() != groups) {  // the first step, or restored under another conflict.scope
        if (auto begun = begin_states(outcome, groups); !begun) return begun.error();
    }
    std::vector<AggregatorState> states = states_;
    std::vector<Solved> solved = solved_;
    std::vector<std::vector<double>> weights;
    bool reused = every_ > 1;
    std::optional<Undecided> undecided;
    for (std::size_t group = 0; group < groups; ++group) {
        AggregatorInput input;
        TaskSet members{~std::uint64_t{0}};
        input.gramian = &outcome.gramian;
        input.losses = outcome.losses;
        // The first group draws as the whole would.
        input.random_key = group == 0 ? key : random_key(key, Purpose::aggregator, {group});
        if (!outcome.groups.empty()) {
            input.gramian = &outcome.groups[group].gramian;
            input.cross = &outcome.groups[group].cross;
            input.excess = outcome.groups[group].excess;
            members = outcome.groups[group].members;
        }
        // Of a task that the method does not see, or where it is not asked: by its number here.
        if (const auto finite = methods::check_finite(input); !finite) return finite.error();
        if (every_ > 1 && still_serves(solved[group], *input.gramian)) {
            ++solved[group].steps;
            weights.push_back(solved[group].weights);
            continue;
        }
        reused = false;
        auto output = solve(input, members, states[group]);
        if (!output) return output.error();
        const bool worse = output->status == AggregatorStatus::degenerate &&
                           (!undecided || undecided->status != AggregatorStatus::degenerate);
        if (worse || (output->status != AggregatorStatus::ok && !undecided)) {
            undecided = {output->status, group, groups};
        }
        if (every_ > 1) {
            const auto entries = input.gramian->entries();
            solved[group] = {output->weights, {entries.begin(), entries.end()}, 1};
        }
        weights.push_back(std::move(output->weights));
    }
    states_ = std::move(states);
    solved_ = std::move(solved);
    reused_ = reused;
    undecided_ = undecided;
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
