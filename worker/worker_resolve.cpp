// From the gradients of a step to weights: the worker's half of conflict resolution on the loop.
#include <algorithm>
#include <cmath>

#include "common/random.h"
#include "worker/worker.h"

namespace detente {

// ‖combined gradient‖² = Σ wᵀGw over the groups of shared blocks + the tasks' own blocks as they
// are.
double Worker::clip_factor(const GradientOutcome& outcome,
                           const std::vector<std::vector<double>>& weights) const {
    if (setup_.job->clip_norm <= 0) return 1;
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
    return norm > setup_.job->clip_norm ? setup_.job->clip_norm / norm : 1;
}

void Worker::not_usable(Error error) {
    if (error.code != ErrorCode::not_finite || setup_.job->on_not_finite != OnNotFinite::skip) {
        return fail_with(std::move(error));
    }
    if (skipped_steps_++ == 0) {
        effects_->log(LogLevel::warning,
                      "step " + std::to_string(computing_->step.value) +
                          " is skipped (further ones are only counted): " + error.text);
    }
    close_step(computing_->step, CancelReason::dropped);
    finish_batch(computing_->batch);
    computing_.reset();
    if (!verdict_first_ && preparing_.empty() && phase_ == Phase::training) open_next_step();
}

Result<std::vector<std::vector<double>>> Worker::weights_of(const GradientOutcome& outcome,
                                                            std::uint64_t key) {
    const std::size_t groups = std::max<std::size_t>(1, outcome.groups.size());
    aggregator_states_.resize(groups, aggregator_->initial_state(setup_.tasks.size()));
    std::vector<AggregatorState> states = aggregator_states_;
    std::vector<std::vector<double>> weights;
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
        auto output = aggregator_->weights(input, states[group]);
        if (!output) return output.error();
        weights.push_back(std::move(output->weights));
    }
    aggregator_states_ = std::move(states);
    return weights;
}

void Worker::resolve(GradientOutcome&& outcome) {
    ++steps_computed_;
    samples_ += outcome.samples;
    compute_time_ += now_ - computing_->began;
    computing_->samples = outcome.samples;
    computing_->gradient_hash = outcome.gradient_hash;
    for (std::size_t task = 0; task < outcome.losses.size() && task < losses_.size(); ++task) {
        constexpr double kKeep = 0.95;
        losses_[task] = steps_computed_ == 1
                            ? outcome.losses[task]
                            : kKeep * losses_[task] + (1 - kKeep) * outcome.losses[task];
    }
    if (outcome.gramian.tasks() > 1) {
        cosine_sum_ += mean_cosine(outcome.gramian);
        ++cosine_count_;
        const std::vector<double> cosines = cosines_of(outcome.gramian);
        pair_cosine_sums_.resize(cosines.size());
        for (std::size_t i = 0; i < cosines.size(); ++i) pair_cosine_sums_[i] += cosines[i];
    }
    CombineWork work;
    work.random_key = random_key(setup_.job->seed, Purpose::aggregator,
                                 {setup_.id.value, computing_->step.value});
    auto weights = weights_of(outcome, work.random_key);
    if (!weights) {
        return not_usable(fail(weights.error().code,
                               "step " + std::to_string(computing_->step.value) + ", aggregator " +
                                   aggregator_->name() + ": " + weights.error().text));
    }
    work.aggregator = aggregator_;
    work.gradients = std::move(outcome.gradients);
    if (aggregator_->needs().coordinates) {
        work.clip_norm = setup_.job->clip_norm;
    } else {
        work.clip_factor = clip_factor(outcome, *weights);
        work.weights = weights->front();
        if (weights->size() > 1) work.group_weights = std::move(*weights);
    }
    combine(std::move(work));
}

}  // namespace detente
