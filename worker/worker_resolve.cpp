// What becomes of a step's gradients when they are there: figures for the status, and the push.
#include <algorithm>
#include <cmath>

#include "common/codec/codec.h"
#include "common/conflict/cosine_bins.h"
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
    if (computing_->combining) {  // nothing is pushed of what was laid out
        const Step opened = computing_->opens;
        std::erase_if(settling_, [&](const auto& one) { return one.step == computing_->step; });
        std::erase_if(preparing_, [&](const auto& one) { return one.step == opened; });
        if (opened.value != 0) next_step_ = opened;  // no shard has heard of it
    }
    record_share(0);
    rounds_.withdraw(computing_->round, *effects_);
    close_step(computing_->step, CancelReason::dropped);
    finish_batch(computing_->batch);
    computing_.reset();
    if (!verdict_first_ && preparing_.empty() && phase_ == Phase::training) open_next_step();
}

void Worker::resolve(GradientOutcome&& outcome) {
    ++steps_computed_;
    samples_ += outcome.samples;
    if (!computing_->in_step) compute_time_ += now_ - computing_->began;
    computing_->samples = outcome.samples;
    computing_->gradient_hash = outcome.gradient_hash;
    // Of a step that is skipped nothing enters the figures: NaN would stay in them.
    const std::vector<double> losses = outcome.losses;
    const Gramian gramian = outcome.gramian;
    const std::vector<Gramian> layers = std::move(outcome.layers);
    std::vector<TaskSet> members;
    members.reserve(outcome.groups.size());
    for (const GroupInput& group : outcome.groups) members.push_back(group.members);
    auto work = resolver_.resolve(std::move(outcome),
                                  random_key(setup_.job->seed, Purpose::aggregator,
                                             {setup_.id.value, computing_->step.value}));
    if (!work) {
        return not_usable(fail(work.error().code, "step " + std::to_string(computing_->step.value) +
                                                      " (tasks in order: " + task_list() + "), " +
                                                      work.error().text));
    }
    note_resolved(losses, gramian);
    note_undecided();
    note_tasks(gramian, members, *work);
    record_resolved(losses, gramian, layers, members, *work);
    combine(std::move(*work));
}

void Worker::note_resolved(const std::vector<double>& losses, const Gramian& gramian) {
    ++steps_resolved_;
    const TaskSet tasks_done = tasks_of(computing_->batch.range(), setup_.tasks.size());
    for (std::uint32_t task = 0; task < losses.size() && task < losses_.size(); ++task) {
        if (!tasks_done.contains(TaskId{task})) continue;
        constexpr double kKeep = 0.95;
        losses_[task] = ++loss_steps_[task] == 1
                            ? losses[task]
                            : kKeep * losses_[task] + (1 - kKeep) * losses[task];
    }
    if (gramian.tasks() < 2 || !of_all_tasks()) return;  // of one task there are no cosines
    note_cosines(gramian);
    interference_.add(gramian);
    if (resolver_.reused()) ++reused_steps_;
}

void Worker::note_undecided() {
    const auto& undecided = resolver_.undecided();
    if (!undecided || undecided_steps_++ > 0) return;
    const bool zero = undecided->status == AggregatorStatus::all_zero;
    const std::string where = undecided->groups == 1
                                  ? ""
                                  : " of group " + std::to_string(undecided->group) + " of " +
                                        std::to_string(undecided->groups);
    effects_->log(LogLevel::warning,
                  "step " + std::to_string(computing_->step.value) + ": conflict.method '" +
                      resolver_.aggregator().name() + "' says '" + name_of(undecided->status) +
                      "': " +
                      (zero ? "every gradient" + where + " is zero"
                            : "its paper leaves the gradients" + where +
                                  " open (parallel, opposed or zero ones)") +
                      "; the weights are the choice that its file in common/conflict/ documents. "
                      "Further such steps are only counted (steps.degenerate)");
}

void Worker::note_cosines(const Gramian& gramian) {
    const std::vector<double> cosines = cosines_of(gramian);
    pair_cosine_sums_.resize(cosines.size());
    for (std::size_t i = 0; i < cosines.size(); ++i) pair_cosine_sums_[i] += cosines[i];
    const std::size_t tasks = gramian.tasks();
    cosine_bins_.resize(pairs_of(tasks) * kCosineBins);
    std::size_t pair = 0;
    double sum = 0;
    std::size_t sharing = 0;
    bool conflict = false;
    for (std::size_t i = 0; i < tasks; ++i) {
        for (std::size_t j = i + 1; j < tasks; ++j, ++pair) {
            if (!shares_[i * tasks + j]) continue;
            const double cosine = cosines[i * tasks + j];
            sum += cosine;
            ++sharing;
            ++cosine_bins_[pair * kCosineBins + cosine_bin(cosine)];
            conflict = conflict || cosine < 0;
        }
    }
    if (sharing == 0) return;
    cosine_sum_ += sum / static_cast<double>(sharing);
    ++cosine_count_;
    if (conflict) ++conflict_steps_;
}

namespace {

std::vector<float> floats_of(const std::vector<double>& values) {
    std::vector<float> floats;
    floats.reserve(values.size());
    for (const double value : values) floats.push_back(static_cast<float>(value));
    return floats;
}

std::vector<float> triangle_of(const Gramian& gramian) {
    std::vector<float> entries;
    for (std::size_t i = 0; i < gramian.tasks(); ++i) {
        for (std::size_t j = i; j < gramian.tasks(); ++j) {
            entries.push_back(static_cast<float>(gramian.at(i, j)));
        }
    }
    return entries;
}

}  // namespace

void Worker::record_resolved(const std::vector<double>& losses, const Gramian& gramian,
                             const std::vector<Gramian>& layers,
                             const std::vector<TaskSet>& members, CombineWork& work) {
    if (!records_conflicts()) return;
    ResolvedRecord record;
    record.worker = setup_.id;
    record.step = computing_->step;
    record.batch = computing_->batch.range();
    record.losses = floats_of(losses);
    record.reused = resolver_.reused();
    if (layers.empty()) {
        record.gramians.push_back(triangle_of(gramian));
    } else {
        for (const Gramian& layer : layers) record.gramians.push_back(triangle_of(layer));
    }
    if (!work.weights.empty() && work.group_weights.empty()) {
        record.weights.push_back(floats_of(work.weights));
    }
    for (std::size_t group = 0; group < work.group_weights.size(); ++group) {
        std::vector<float>& weights = record.weights.emplace_back();
        weights = floats_of(work.group_weights[group]);
        for (std::uint32_t task = 0; task < weights.size(); ++task) {
            if (!members[group].contains(TaskId{task})) weights[task] = std::nanf("");
        }
    }
    const AggregatorNeeds needs = resolver_.aggregator().needs();
    const bool says_all =
        !needs.averages && !needs.coordinates &&
        (record.weights.size() == 1 || record.weights.size() == record.gramians.size());
    if (says_all) return effects_->record({now_, std::move(record)});
    work.measured = true;
    computing_->resolved = std::move(record);
}

void Worker::record_result(const CombineOutcome& outcome) {
    if (!computing_->resolved) return;
    ResolvedRecord& record = *computing_->resolved;
    if (!outcome.products.empty()) {
        record.result = floats_of(outcome.products);
        record.result.push_back(static_cast<float>(outcome.result_sq));
    }
    effects_->record({now_, std::move(record)});
}

bool Worker::records_conflicts() const {
    return setup_.tasks.size() > 1 && of_all_tasks() &&
           setup_.job->ledger_conflicts != LedgerConflicts::off;
}

void Worker::note_tasks(const Gramian& gramian, const std::vector<TaskSet>& members,
                        const CombineWork& work) {
    const std::size_t tasks = gramian.tasks();
    if (tasks < 2 || !of_all_tasks()) return;
    norm_sums_.resize(tasks);
    for (std::size_t i = 0; i < tasks; ++i) {
        norm_sums_[i] += std::sqrt(std::max(0.0, gramian.at(i, i)));
    }
    if (work.weights.empty()) return;
    weight_sums_.resize(tasks);
    if (work.group_weights.empty()) {
        for (std::size_t i = 0; i < tasks; ++i) weight_sums_[i] += work.weights[i];
        return;
    }
    // Of the groups that a task has a part in: elsewhere it was given none.
    for (std::uint32_t i = 0; i < tasks; ++i) {
        double sum = 0;
        std::size_t groups = 0;
        for (std::size_t group = 0; group < work.group_weights.size(); ++group) {
            if (!members[group].contains(TaskId{i})) continue;
            sum += work.group_weights[group][i];
            ++groups;
        }
        if (groups > 0) weight_sums_[i] += sum / static_cast<double>(groups);
    }
}

MethodState Worker::method_state() {
    MethodState state = resolver_.saved();
    if (state.values.size() <= kMostMethodValues) return state;
    if (!state_too_large_) {
        state_too_large_ = true;
        effects_->log(LogLevel::warning,
                      "what conflict.method '" + state.method + "' remembers takes " +
                          std::to_string(state.values.size()) + " values, at most " +
                          std::to_string(kMostMethodValues) +
                          " fit a checkpoint: a resumed run begins without them; use a larger "
                          "blocks.bytes, or conflict.scope = \"layer\"");
    }
    return {};
}

// "0 left, 1 right": what the numbers in a method's error stand for.
std::string Worker::task_list() const {
    std::string list;
    for (std::size_t i = 0; i < setup_.tasks.size(); ++i) {
        list += (list.empty() ? "" : ", ") + std::to_string(i) + " " + setup_.tasks[i];
    }
    return list;
}

}  // namespace detente
