// How stages and runs end: deadlines, signals, checkpoints, evaluations.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/worker_file.h"
#include "launch/coordinator.h"

namespace detente {

namespace {

bool is_worker(const ProcessView& process) { return process.node.role == Role::worker; }
bool is_shard(const ProcessView& process) { return process.node.role == Role::shard; }

}  // namespace

// "shard:1 (last seen loading, waiting for weights), worker:0 (nothing reported)"
template <class Predicate>
std::string Coordinator::names_where(Predicate predicate) const {
    std::string names;
    for (const ProcessView& process : view_.processes) {
        if (!predicate(process)) continue;
        if (!names.empty()) names += ", ";
        names += to_string(process.node);
        if (!process.endpoint.host.empty()) names += " on " + process.endpoint.host;
        if (process.last.activity.empty()) continue;
        names += " (" + process.last.activity;
        if (!process.last.waiting_for.empty()) names += ", waits for " + process.last.waiting_for;
        names += ")";
    }
    return names;
}

void Coordinator::enter(Stage stage, std::optional<Nanos> deadline, Effects& effects) {
    if (stage_timer_) effects.cancel(*stage_timer_);
    stage_timer_.reset();
    view_.stage = stage;
    view_.stage_since = view_.now;
    if (!deadline) return;
    stage_due_ = view_.now + *deadline;
    stage_timer_ = effects.after(*deadline, {kStageDeadline, 0});
}

void Coordinator::stage_deadline_passed(Effects& effects) {
    const double waited = as_seconds(view_.now - view_.stage_since);
    switch (view_.stage) {
        case Stage::gathering:
            return abort(
                fail(ErrorCode::timed_out,
                     fmt::format(
                         "after {:.1f} s (deadlines.start_s) no hello from {}; see their logs, "
                         "and whether they reach the coordinator on {}",
                         waited, names_where([](const ProcessView& p) {
                             return p.phase == Phase::missing;
                         }),
                         options_.host)),
                effects);
        case Stage::preparing:
            return abort(
                fail(ErrorCode::timed_out,
                     fmt::format(
                         "after {:.1f} s (deadlines.start_s) not ready: {}; see their logs, or "
                         "raise deadlines.start_s",
                         waited, names_where([](const ProcessView& p) {
                             return p.phase == Phase::preparing;
                         }))),
                effects);
        case Stage::draining:
            for (ProcessView& process : view_.processes) {
                if (!is_worker(process) || !process.live()) continue;
                const std::string text = fmt::format(
                    "did not stop within {:.1f} s (deadlines.stop_s) of being asked to", waited);
                lose(process, failure_of(process, ErrorCode::timed_out, text), effects);
            }
            return;
        case Stage::saving:
            return checkpoint_failed(
                fail(ErrorCode::timed_out,
                     fmt::format("not done within {:.1f} s (deadlines.stop_s): still at it: {}",
                                 waited, saving_awaits())),
                effects);
        case Stage::evaluating:
            return checkpoint_failed(
                fail(ErrorCode::timed_out,
                     fmt::format("the evaluation was not done after {:.0f} s", waited)),
                effects);
        case Stage::stopping: {
            if (!error_) {
                error_ =
                    fail(ErrorCode::timed_out,
                         fmt::format("did not stop within {:.1f} s (deadlines.stop_s): {}", waited,
                                     names_where([](const ProcessView& p) { return p.live(); })));
            }
            return finish(effects);
        }
        default:
            return;
    }
}

void Coordinator::on_signal(const Stop& stop, Effects& effects) {
    const Error error = fail(ErrorCode::cancelled, stop.reason);
    if (!stop.drain || !view_.training_began) return abort(error, effects);
    switch (view_.stage) {
        case Stage::training:
            return end_training(stop.reason, error, effects);
        case Stage::evaluating:  // the checkpoint is there
            if (!error_) error_ = error;
            return stop_shards(effects);
        default:
            if (!error_) error_ = error;
    }
}

void Coordinator::end_training(const std::string& reason, std::optional<Error> error,
                               Effects& effects) {
    if (!error_) error_ = std::move(error);
    effects.log(LogLevel::information, "ending early: " + reason);
    enter(Stage::draining, options_.job.stop_deadline, effects);
    for (const ProcessView& process : view_.processes) {
        if (is_worker(process) && process.live()) {
            send(process.node, Stop{.reason = reason, .drain = true}, effects);
        }
    }
    advance(effects);
}

void Coordinator::advance(Effects& effects) {
    const auto any_live = [&](auto predicate) {
        return std::any_of(view_.processes.begin(), view_.processes.end(),
                           [&](const ProcessView& p) { return predicate(p) && p.live(); });
    };
    switch (view_.stage) {
        case Stage::training:
        case Stage::draining: {
            if (any_live(is_worker)) return;
            view_.training_ended = view_.now;
            const bool any_clean = std::any_of(
                view_.processes.begin(), view_.processes.end(),
                [](const auto& p) { return is_worker(p) && p.phase == Phase::stopped; });
            if (!any_clean && !error_) {
                const Failure* first = view_.first_failure();
                error_ = fail(first->code, "no worker is left; first to go was " +
                                               to_string(first->node) + ": " + first->text);
            }
            last_checkpoint_wanted_ = true;
            enter(Stage::saving, std::nullopt, effects);
            if (!saving_) return start_checkpoint(true, !error_, effects);
            // One that began before comes first. Now it is waited for.
            if (saving_->step != Saving::Step::evaluating) {
                watch_saving(options_.job.stop_deadline, effects);
            }
            return;
        }
        case Stage::stopping:
            if (!any_live([](const ProcessView&) { return true; })) finish(effects);
            return;
        default:
            return;
    }
}

void Coordinator::abort(Error error, Effects& effects) {
    if (!error_) error_ = std::move(error);
    end_saving(effects);
    enter(Stage::stopping, std::min<Nanos>(kAbortDeadline, options_.job.stop_deadline), effects);
    for (const ProcessView& process : view_.processes) {
        if (process.live()) {
            send(process.node, Stop{.reason = error_->text, .drain = false}, effects);
        }
    }
    advance(effects);
}

void Coordinator::stop_shards(Effects& effects) {
    end_saving(effects);
    enter(Stage::stopping, options_.job.stop_deadline, effects);
    for (const ProcessView& process : view_.processes) {
        if (process.live()) send(process.node, Stop{.reason = "the run is over"}, effects);
    }
    advance(effects);
}

void Coordinator::finish(Effects& effects) {
    enter(Stage::finished, std::nullopt, effects);
    if (!error_) {
        const Result<void> balance = total_books(view_).balance("the run");
        if (balance.has_error()) error_ = balance.error();
    }
    if (!error_) error_ = never_in_step();
    if (error_ && !last_checkpoint_done_) error_->text += resume_hint();
    Outcome outcome;
    outcome.failed = error_.has_value();
    if (error_) outcome.error = *error_;
    effects.finish(std::move(outcome));
}

std::string Coordinator::resume_hint() const {
    if (!view_.training_began) return "";
    if (view_.checkpoints.empty()) {
        if (view_.resumed_from.empty()) return "; there is no checkpoint to resume from";
        return "; this run wrote no checkpoint; to go on from the one it began with: --resume " +
               view_.resumed_from;
    }
    const char* which = last_checkpoint_failed_ ? "; an earlier one stands; to go on from it: "
                                                : "; to go on from its last checkpoint: ";
    return std::string(which) + "--resume " + view_.checkpoints.back().directory;
}

void Coordinator::save_when_due(Effects& effects) {
    if (view_.stage != Stage::training || saving_) return;
    // Asked at every status of every process: nothing is summed up where nothing can be due.
    if (options_.job.evaluate_every_samples == 0 && options_.job.checkpoint_every_samples == 0) {
        return;
    }
    const std::uint64_t samples = total_samples(view_);
    const auto due = [&](std::uint64_t every, std::uint64_t& next) {
        if (every == 0 || samples < next) return false;
        next = (samples / every + 1) * every;
        return true;
    };
    const bool evaluate = due(options_.job.evaluate_every_samples, next_evaluation_samples_);
    const bool save = due(options_.job.checkpoint_every_samples, next_save_samples_);
    if (evaluate || save) start_checkpoint(false, evaluate, effects);
}

void Coordinator::start_checkpoint(bool last, bool evaluate, Effects& effects) {
    Saving saving;
    saving.last = last;
    saving.evaluate = evaluate;
    saving.checkpoint.number = next_checkpoint_++;
    saving.checkpoint.samples = total_samples(view_);
    saving.checkpoint.directory =
        options_.checkpoint_dir + "/" + std::to_string(saving.checkpoint.number);
    for (const ProcessView& process : view_.processes) {
        // One that has not begun has nothing to say, and may not hear it.
        const bool remembers =
            workers_remember_ && is_worker(process) && process.phase == Phase::working;
        if (is_shard(process) || remembers) saving.missing.insert(process.node);
    }
    const CheckpointRequest request{saving.checkpoint.number, saving.checkpoint.directory};
    for (const NodeId node : saving.missing) send(node, request, effects);
    saving_ = std::move(saving);
    if (last) return enter(Stage::saving, options_.job.stop_deadline, effects);
    watch_saving(std::max<Nanos>(options_.job.stop_deadline, kLeastSavingDeadline), effects);
}

// The last checkpoint's deadline is its stage's.
void Coordinator::watch_saving(std::optional<Nanos> deadline, Effects& effects) {
    if (saving_timer_) effects.cancel(*saving_timer_);
    saving_timer_.reset();
    saving_since_ = view_.now;
    if (!deadline) return;
    saving_due_ = view_.now + *deadline;
    saving_timer_ = effects.after(*deadline, {kSavingDeadline, 0});
}

std::string Coordinator::saving_awaits() const {
    if (saving_ && saving_->step == Saving::Step::evaluating) return "the evaluation";
    if (!saving_ || saving_->missing.empty()) return "the merge";
    return names_where([&](const ProcessView& p) { return saving_->missing.contains(p.node); });
}

void Coordinator::saving_deadline_passed(Effects& effects) {
    saving_timer_.reset();
    checkpoint_failed(fail(ErrorCode::timed_out,
                           fmt::format("not done after {:.1f} s: still at it: {}",
                                       as_seconds(view_.now - saving_since_), saving_awaits())),
                      effects);
}

void Coordinator::end_saving(Effects& effects) {
    watch_saving(std::nullopt, effects);
    saving_.reset();
}

std::set<WorkerId> Coordinator::worker_files() const {
    std::set<WorkerId> workers = last_words_;
    if (saving_) workers.insert(saving_->files.begin(), saving_->files.end());
    return workers;
}

void Coordinator::on_checkpoint_reply(NodeId from, const CheckpointReply& reply, Effects& effects) {
    if (reply.number == kLastWord && from.role == Role::worker) {
        if (!reply.file.empty()) last_words_.insert(WorkerId{from.index});
        return;
    }
    if (!saving_ || saving_->checkpoint.number != reply.number) return;
    if (!reply.error.empty()) {
        const std::string who = from == kMerger ? "merging" : to_string(from);
        return checkpoint_failed(fail(reply.code, who + ": " + reply.error), effects);
    }
    if (from.role == Role::worker) {
        remember(from, reply.method_state);
        if (!reply.file.empty()) saving_->files.insert(WorkerId{from.index});
    }
    if (from != kMerger) return written(from, effects);
    const CheckpointRequest request{reply.number, saving_->checkpoint.directory};
    if (saving_->step != Saving::Step::merging || from != kMerger) return;
    view_.checkpoints.push_back(saving_->checkpoint);
    effects.log(LogLevel::information,
                fmt::format("checkpoint {} written to {}", reply.number, request.directory));
    last_checkpoint_done_ = last_checkpoint_done_ || saving_->last;
    if (!saving_->evaluate || error_) return checkpoint_done(effects);
    saving_->step = Saving::Step::evaluating;
    if (saving_->last) {
        enter(Stage::evaluating, kEvaluationDeadline, effects);
    } else {
        watch_saving(kEvaluationDeadline, effects);
    }
    send(kEvaluator, request, effects);
}

void Coordinator::remember(NodeId worker, MethodState state) {
    if (state.groups > 0) method_states_[worker] = std::move(state);
}

// One less to wait for: it has written its part, or it is gone and has none.
void Coordinator::written(NodeId from, Effects& effects) {
    if (!saving_ || saving_->step != Saving::Step::writing) return;
    if (saving_->missing.erase(from) == 0 || !saving_->missing.empty()) return;
    saving_->step = Saving::Step::merging;
    CheckpointRequest request{saving_->checkpoint.number, saving_->checkpoint.directory};
    for (const auto& [worker, state] : method_states_) {
        request.methods.push_back({WorkerId{worker.index}, state});
    }
    send(kMerger, std::move(request), effects);
}

void Coordinator::on_evaluated(const Stopped& stopped, Effects& effects) {
    if (!saving_ || saving_->step != Saving::Step::evaluating) return;
    if (stopped.failed) {
        return checkpoint_failed(fail(stopped.code, "evaluation: " + stopped.error), effects);
    }
    CheckpointView& checkpoint = view_.checkpoints.back();
    std::string scores;
    for (const NamedValue& value : stopped.last.values) {
        constexpr std::string_view kPrefix = "accuracy.";
        constexpr std::string_view kLoss = "loss.";
        if (value.name.starts_with(kLoss)) {
            checkpoint.loss.emplace_back(value.name.substr(kLoss.size()), value.value);
        }
        if (!value.name.starts_with(kPrefix)) continue;
        checkpoint.accuracy.emplace_back(value.name.substr(kPrefix.size()), value.value);
        scores += fmt::format("  {} {:.2f} %", checkpoint.accuracy.back().first, 100 * value.value);
    }
    const CheckpointView* best = view_.best ? view_.checkpoint(*view_.best) : nullptr;
    if (best == nullptr || checkpoint.mean_accuracy() > best->mean_accuracy()) {
        view_.best = checkpoint.number;
    }
    effects.log(LogLevel::information,
                fmt::format("checkpoint {} evaluated:{}", checkpoint.number, scores));
    checkpoint_done(effects);
}

void Coordinator::checkpoint_failed(Error error, Effects& effects) {
    error.text = fmt::format("checkpoint {}: {}", saving_->checkpoint.number, error.text);
    if (saving_->last) return last_checkpoint_failed(std::move(error), effects);
    // In the middle of training the next one may succeed; the run goes on.
    effects.log(LogLevel::warning, error.text);
    checkpoint_done(effects);
}

void Coordinator::last_checkpoint_failed(Error error, Effects& effects) {
    effects.log(LogLevel::warning, error.text);
    last_checkpoint_failed_ = !last_checkpoint_done_;  // else it is there, and was not scored
    if (!error_) {
        error_ = std::move(error);
    } else {
        // What the run ends with is told first; this is not to be lost behind it.
        error_->text += last_checkpoint_failed_ ? "; the last checkpoint was not written: "
                                                : "; the last checkpoint was not scored: ";
        error_->text += error.text;
    }
    stop_shards(effects);
}

void Coordinator::checkpoint_done(Effects& effects) {
    const bool last = saving_ && saving_->last;
    end_saving(effects);
    if (last) return stop_shards(effects);
    if (last_checkpoint_wanted_) start_checkpoint(true, !error_, effects);
}

std::vector<std::uint64_t> Coordinator::superfluous_checkpoints() const {
    std::vector<std::uint64_t> numbers;
    const std::size_t kept = std::max<std::size_t>(options_.job.checkpoints_kept, 1);
    for (std::size_t i = 0; i + kept < view_.checkpoints.size(); ++i) {
        const std::uint64_t number = view_.checkpoints[i].number;
        if (number != view_.best) numbers.push_back(number);
    }
    return numbers;
}

}  // namespace detente
