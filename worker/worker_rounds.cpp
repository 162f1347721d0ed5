// What a worker does in step with the others of its node: its rounds from the gradient to the
// node's verdict, and what becomes of them when the group changes.
#include <algorithm>

#include "worker/worker.h"

namespace detente {

std::uint32_t Worker::samples_in(const Batch& batch) const {
    const std::uint64_t each = setup_.job->batch_samples;
    const std::uint64_t total = setup_.training_samples;
    if (total == 0) return static_cast<std::uint32_t>(each);
    const std::uint64_t first = std::min(total, batch.index * each);
    return static_cast<std::uint32_t>(std::min(total, first + each) - first);
}

bool Worker::joins_round(const Batch& batch) {
    if (!rounds_.averages()) return false;
    // Some of the blocks in step only: the others' rows of the rest would be pushed by nobody.
    const std::vector<BlockId>& only = batch.only;
    const bool concerns =
        only.empty() ||
        std::all_of(rounds_.blocks().begin(), rounds_.blocks().end(), [&only](BlockId id) {
            return std::find(only.begin(), only.end(), id) != only.end();
        });
    return concerns && ++since_round_ >= setup_.job->sync_every;
}

void Worker::open_round() {
    since_round_ = 0;
    computing_->group = rounds_.epoch();
    computing_->round = rounds_.open(&computing_->base, samples_in(computing_->batch), *effects_);
}

// The rows in step are on their way to the others, task by task; the rest waits for theirs.
void Worker::own_gradient(GradientOutcome&& outcome) {
    compute_time_ += now_ - computing_->began;
    record_share(outcome.gradient_hash);
    computing_->own = std::move(outcome);
    computing_->own_since = now_;
    measure_averages();
}

void Worker::record_share(std::uint64_t gradient_hash) {
    const TaskSet tasks = std::exchange(computing_->brought, {});
    if (computing_->round.value == 0 || tasks.empty()) return;
    ShareRecord record;
    record.worker = setup_.id;
    record.step = computing_->step;
    record.group = computing_->group;
    record.round = computing_->round;
    record.batch = computing_->batch.range();
    record.samples = samples_in(computing_->batch);
    record.tasks = tasks;
    record.gradient_hash = gradient_hash;
    for (const auto& [block, at] : computing_->base) {
        record.blocks.push_back(block);
        record.versions.push_back(at.second);
    }
    effects_->record({now_, std::move(record)});
}

void Worker::measure_averages() {
    if (!computing_ || !computing_->own || computing_->averaged) return;
    auto averages = rounds_.take_averages(computing_->round, *effects_);
    if (!averages) return;
    computing_->averaged = true;
    round_time_ += now_ - computing_->own_since;
    computing_->pushes_in_step = averages->pushes;
    computing_->node_samples = averages->samples;
    effects_->record({now_, AveragedRecord{setup_.id, computing_->step, computing_->group,
                                           computing_->round, averages->samples}});
    for (const auto& [block, base] : averages->base) computing_->base[block] = base;
    MeasureWork work;
    work.of = std::move(computing_->measured);
    work.computed = std::move(*computing_->own);
    work.averages = std::move(averages->by_task);
    step_time_.next_half_begins(now_);
    computing_->ticket = effects_->compute(std::move(work));
}

// Blocks in step are repaired all or none: members may have other batches in the next round, and
// what was applied of this one must not come again.
std::vector<BlockId> Worker::repairable(std::vector<BlockId> rejected) const {
    const auto in_step = [this](BlockId id) { return setup_.plan->block(id).in_step; };
    const auto found = std::count_if(rejected.begin(), rejected.end(), in_step);
    if (static_cast<std::size_t>(found) < rounds_.blocks().size()) std::erase_if(rejected, in_step);
    return rejected;
}

void Worker::tell_node(Settling& settling) {
    settling.in_step_rejected = repairable(std::move(settling.in_step_rejected));
    rounds_.tell(settling.round, settling.in_step_rejected, *effects_);
}

// A rejection binds the node: every member repairs its own part of the average.
void Worker::round_ended(const SyncRounds::Ended& ended) {
    const auto found = std::find_if(settling_.begin(), settling_.end(),
                                    [&](const Settling& one) { return one.round == ended.round; });
    if (found == settling_.end()) {
        // The node's push was judged before this worker's own part of the step was laid out.
        if (computing_ && computing_->round == ended.round) {
            computing_->round = {};
            computing_->in_step_rejected = ended.rejected;
            computing_->in_step_dropped = ended.dropped;
        }
        return;
    }
    found->round = {};
    found->dropped = ended.dropped;
    found->rejected.insert(found->rejected.end(), ended.rejected.begin(), ended.rejected.end());
    if (--found->parts_missing == 0) settle(*found);
}

void Worker::form_group(const FormGroup& form) {
    if (rounds_.designated()) rounds_.form(form.group, *effects_);
}

void Worker::group_formed(const GroupFormed& event) {
    const SyncRounds::Formed formed = rounds_.formed(event);
    if (formed == SyncRounds::Formed::lost) return group_lost({}, event.result.error());
    if (formed == SyncRounds::Formed::ready) give_up_rounds();
}

void Worker::group_lost(const std::vector<WorkerId>& missing, const Error& error) {
    if (error.code == ErrorCode::not_supported) return fail_with(error);
    ++groups_lost_;
    // Of a process that is gone the coordinator speaks, and knows whether it left in order.
    const bool gone = error.code == ErrorCode::peer_lost;
    effects_->log(gone ? LogLevel::information : LogLevel::warning,
                  "its node is no longer in step: " + error.text);
    LostGroup lost;
    lost.epoch = rounds_.group().epoch;
    lost.missing = missing;
    lost.code = error.code;
    lost.error = error.text;
    Message message;
    message.body = std::move(lost);
    effects_->send(kCoordinator, std::move(message));
    give_up_rounds();
}

// What was averaged already goes its way; a gradient that was not is computed again, in the next
// group.
void Worker::give_up_rounds() {
    for (;;) {
        const auto found = std::find_if(settling_.begin(), settling_.end(),
                                        [](const Settling& one) { return one.round.value != 0; });
        if (found == settling_.end()) break;
        found->round = {};
        found->rejected.insert(found->rejected.end(), found->in_step_rejected.begin(),
                               found->in_step_rejected.end());
        if (--found->parts_missing == 0) settle(*found);
    }
    if (!computing_ || computing_->round.value == 0) return;
    record_share(0);  // the others may have all of the averages
    computing_->round = {};
    if (computing_->averaged || computing_->cancelled) return;
    computing_->cancelled = true;
    computing_->restarts = true;
    if (computing_->own) return end_cancelled();
    effects_->cancel(computing_->ticket);
}

bool Worker::idle_but_for_rounds() const {
    return phase_ == Phase::training && rounds_.averages() && !rounds_.passes() && !computing_ &&
           settling_.empty() && batches_.empty() && (lease_ || lease_useless_);
}

// The others may be in a round, and hold the batches it waits for.
void Worker::pass_rounds() {
    pass_timer_ = false;
    if (!idle_but_for_rounds()) return;
    since_round_ = 0;
    rounds_.open(nullptr, 0, *effects_);
}

}  // namespace detente
