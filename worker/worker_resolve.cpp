// What becomes of a step's gradients when they are there: figures for the status, and the push.
#include "common/random.h"
#include "worker/worker.h"

namespace detente {

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
    auto work = resolver_.resolve(std::move(outcome),
                                  random_key(setup_.job->seed, Purpose::aggregator,
                                             {setup_.id.value, computing_->step.value}));
    if (!work) {
        return not_usable(fail(work.error().code, "step " + std::to_string(computing_->step.value) +
                                                      ", " + work.error().text));
    }
    combine(std::move(*work));
}

}  // namespace detente
