// The way of a push through a shard: known before? whole and true? allowed? fresh enough? then
// applied.
#include <algorithm>
#include <utility>

#include "common/checksum.h"
#include "common/invariant.h"
#include "ps/shard.h"

namespace detente {

void Shard::push(Message&& message) {
    if (!deferred_.empty()) {
        const Push& body = std::get<Push>(message.body);
        const bool waits_already =
            std::any_of(deferred_.begin(), deferred_.end(), [&](const Message& held) {
                const Push& one = std::get<Push>(held.body);
                return held.envelope.from == message.envelope.from &&
                       held.envelope.incarnation == message.envelope.incarnation &&
                       one.step == body.step && one.part == body.part;
            });
        if (waits_already) {
            ++repeated_;
        } else {
            deferred_.push_back(std::move(message));
        }
        return;
    }
    if (judge(message.envelope, std::get<Push>(message.body)) == Judged::yes) return;
    deferred_.push_back(std::move(message));
    deferred_deadline_ = effects_->after(setup_.job->reply_deadline, {kDeferredDeadline, 0});
}

void Shard::retry_deferred() {
    while (!deferred_.empty()) {
        const Message& message = deferred_.front();
        if (judge(message.envelope, std::get<Push>(message.body)) == Judged::no_spare) return;
        deferred_.pop_front();
    }
    effects_->cancel(deferred_deadline_);
}

// What lies in step is pushed by one worker for all of its node.
std::uint64_t Shard::most_samples(const Push& body) const {
    const auto in_step = [this](const GradientBlock& gradient) {
        const auto& blocks = setup_.plan->blocks;
        return gradient.block.value < blocks.size() && blocks[gradient.block.value].in_step;
    };
    const bool of_a_node = std::all_of(body.blocks.begin(), body.blocks.end(), in_step);
    return std::uint64_t{setup_.job->batch_samples} * (of_a_node ? setup_.job->most_workers() : 1);
}

Result<void> Shard::check_part(const Push& body, std::vector<LiveBlock*>& blocks) const {
    if (body.encoding != Encoding::dense) {
        return fail(ErrorCode::not_supported, "encoding 'rows' needs sparse tables; push dense");
    }
    if (body.blocks.empty()) return fail(ErrorCode::bad_message, "a push without blocks");
    const std::uint64_t most = most_samples(body);
    if (body.samples == 0 || body.samples > most) {  // it moves the schedules
        return fail(ErrorCode::bad_message,
                    "a gradient of " + std::to_string(body.samples) + " samples; expected 1 to " +
                        std::to_string(most) + ", the job's batch" +
                        (most > setup_.job->batch_samples ? " times its workers" : ""));
    }
    auto& store = const_cast<BlockStore&>(store_);  // find() hands out what judge() will update
    for (const GradientBlock& gradient : body.blocks) {
        LiveBlock* block = store.find(gradient.block);
        const std::string name = "block " + std::to_string(gradient.block.value);
        if (block == nullptr) {
            return fail(ErrorCode::unknown_block,
                        name + " does not live on shard " + std::to_string(setup_.id.value) +
                            "; do worker and server run the same job and model?");
        }
        if (block->plan->frozen) {
            return fail(ErrorCode::not_owner, name + " is frozen: nothing may be pushed to it");
        }
        if (gradient.tasks.empty() || !block->plan->owners.contains_all(gradient.tasks)) {
            return fail(ErrorCode::not_owner, name + ": tasks " +
                                                  std::to_string(gradient.tasks.bits) +
                                                  " (bits) contributed, its owners are " +
                                                  std::to_string(block->plan->owners.bits));
        }
        if (setup_.job->split_tasks &&
            (gradient.tasks.count() != 1 || gradient.tasks != body.batch.tasks)) {
            return fail(ErrorCode::bad_message,
                        name + ": tasks " + std::to_string(gradient.tasks.bits) +
                            " (bits) contributed to a step of " +
                            std::to_string(body.batch.tasks.bits) +
                            "; under worker.split_tasks a step is of one task");
        }
        if (gradient.gradient.size() != block->plan->bytes()) {
            return fail(ErrorCode::bad_length,
                        name + ": gradient of " + std::to_string(gradient.gradient.size()) +
                            " bytes, expected " + std::to_string(block->plan->bytes()));
        }
        if (gradient.epoch == block->epoch && gradient.base > block->version) {
            return fail(ErrorCode::bad_message, name + ": based on version " +
                                                    std::to_string(gradient.base.value) +
                                                    ", which does not exist yet (now " +
                                                    std::to_string(block->version.value) + ")");
        }
        // Worker parts ascend, so the search is for senders that do not.
        const bool ascends = blocks.empty() || blocks.back() < block;
        if (!ascends && std::find(blocks.begin(), blocks.end(), block) != blocks.end()) {
            return fail(ErrorCode::bad_message, name + " is twice in one part of a push");
        }
        blocks.push_back(block);
    }
    return {};
}

Shard::Judged Shard::judge(const Envelope& from, const Push& body) {
    const WorkerId worker{from.from.index};
    acknowledge(worker, body.acknowledged);
    if (const auto* verdicts = duplicates_.judged(worker, body.step, body.part)) {
        ++repeated_;
        if (decides_steps()) {
            answer(from, body);
        } else {
            reply_to_push(from, body, *verdicts);
        }
        return Judged::yes;
    }
    const bool was_aborted =
        !aborted_.empty() && aborted_.contains({worker, from.incarnation, body.step});
    if (decides_steps() || was_aborted) {
        stage(from, body);
        return Judged::yes;
    }
    const bool lost = duplicates_.lost_by_restore(worker, body.step);
    if (!lost &&
        duplicates_.settled(worker, body.step)) {  // late double of a settled step: nobody waits
        ++repeated_;
        return Judged::yes;
    }
    std::vector<LiveBlock*> blocks;
    if (auto checked = check_part(body, blocks); !checked) {
        refuse(from, checked.error(), body.step, body.part);
        return Judged::yes;
    }
    if (!store_.initialised()) {
        refuse(from, fail(ErrorCode::wrong_epoch, "this shard has no weights yet"), body.step,
               body.part);
        return Judged::yes;
    }
    if (lost) {
        answer_lost(from, body, blocks);
        return Judged::yes;
    }
    if (!store_.can_apply(blocks)) return Judged::no_spare;
    bool finite = true;
    for (const GradientBlock& gradient : body.blocks) {
        auto verified = verify_block(gradient.gradient.bytes, gradient.checksum);
        if (verified) continue;
        if (verified.error().code != ErrorCode::not_finite) {  // altered on its way: ask again
            refuse(from, verified.error(), body.step, body.part);
            return Judged::yes;
        }
        if (!std::exchange(finite, false)) continue;  // one message, counted once
        count_refused(from, fail(ErrorCode::not_finite,
                                 "block " + std::to_string(gradient.block.value) + " of step " +
                                     std::to_string(body.step.value) + ": " +
                                     verified.error().text + "; nothing of that part is applied"));
    }
    if (!open_step(from, body.step, body.part)) return Judged::yes;
    if (auto fits = duplicates_.fits(worker, body.step, body.blocks); !fits) {
        refuse(from, fits.error(), body.step, body.part);
        return Judged::yes;
    }

    ++pushes_;
    std::vector<BlockVerdict> verdicts(body.blocks.size());
    std::vector<double> rates(body.blocks.size(), 0.0);
    for (std::size_t i = 0; i < body.blocks.size(); ++i) {
        push_bytes_ += body.blocks[i].gradient.size();
        if (finite) {
            rates[i] = judge_block(*blocks[i], body.blocks[i], from, body, verdicts[i]);
        } else {  // nothing of a part with NaN or Inf is applied
            verdicts[i] = {
                body.blocks[i].block, Verdict::rejected, Advice::drop, ErrorCode::not_finite, 0, 1,
                blocks[i]->epoch,     blocks[i]->version};
        }
    }
    if (auto recorded = duplicates_.record(worker, body.step, body.part, verdicts); !recorded) {
        invariant(false, "a step settles no more blocks than it opened");
    }
    record_push(from, body, verdicts, rates, {}, now_);
    reply_to_push(from, body, verdicts);
    return Judged::yes;
}

double Shard::judge_block(LiveBlock& block, const GradientBlock& gradient, const Envelope& from,
                          const Push& push, BlockVerdict& verdict) {
    verdict.block = gradient.block;
    if (gradient.epoch != block.epoch) {
        verdict.verdict = Verdict::rejected;
        verdict.advice = Advice::refresh;
        verdict.reason = ErrorCode::wrong_epoch;
        verdict.epoch = block.epoch;
        verdict.version = block.version;
        return 0;
    }
    verdict.staleness = block.version.value - gradient.base.value;
    if (!store_.can_correct(block, WorkerId{from.from.index}, gradient.base)) {
        verdict.verdict = Verdict::rejected;
        verdict.advice = Advice::refresh;
        verdict.reason = ErrorCode::wrong_epoch;
        verdict.epoch = block.epoch;
        verdict.version = block.version;
        return 0;
    }
    Arrived arrived =
        store_.arrival(block, WorkerId{from.from.index}, push.step, verdict.staleness);
    arrived.at_s = as_seconds(now_);
    std::vector<PolicyOutcome> outcomes;
    block.policy->on(arrived, block.policy_state, outcomes);
    invariant(outcomes.size() == 1, "a policy of block scope settles each arrival at once");
    if (const auto* rejected = std::get_if<RejectThis>(&outcomes.front())) {
        verdict.verdict = Verdict::rejected;
        verdict.advice = rejected->advice;
        verdict.reason = rejected->reason;
    } else if (const auto* applied = std::get_if<ApplyThese>(&outcomes.front())) {
        invariant(!block.policy->bound() || verdict.staleness <= *block.policy->bound(),
                  "a bounded policy accepts nothing past its bound");
        invariant(applied->pushes.size() == 1 && applied->denominator == 1,
                  "a policy of block scope that keeps nothing applies one push at a time");
        verdict.verdict = Verdict::applied;
        verdict.step_scale = applied->step_scale;
        store_.apply_parts(
            block, {{gradient.gradient.bytes.data(), 1, arrived, gradient.base, gradient.tasks}}, 1,
            applied->step_scale, push.samples);
        count_staleness(staleness_, verdict.staleness);
        staleness_sum_ += static_cast<double>(verdict.staleness);
        staleness_max_ = std::max(staleness_max_, verdict.staleness);
    } else {
        invariant(false, "a policy of block scope applies or rejects");
    }
    verdict.epoch = block.epoch;
    verdict.version = block.version;
    return verdict.verdict == Verdict::applied ? arrived.learning_rate : 0;
}

void Shard::record_push(const Envelope& from, const Push& body,
                        const std::vector<BlockVerdict>& verdicts, const std::vector<double>& rates,
                        const Folded& folded, Time arrived) {
    VerdictRecord record;
    record.worker = WorkerId{from.from.index};
    record.incarnation = from.incarnation;
    record.step = body.step;
    record.part = body.part;
    record.epoch = setup_.epoch;
    record.batch = body.batch;
    record.samples = body.samples;
    record.gradient_hash = body.gradient_hash;
    record.decision = folded.decision;
    record.gradient_weight = folded.gradient_weight;
    record.denominator = folded.denominator;
    record.arrived = arrived;
    record.rows.reserve(verdicts.size());
    for (std::size_t i = 0; i < verdicts.size(); ++i) {
        record.rows.push_back({verdicts[i].block, body.blocks[i].tasks, body.blocks[i].base,
                               verdicts[i].version, verdicts[i].staleness, verdicts[i].step_scale,
                               rates[i], verdicts[i].verdict, verdicts[i].reason});
    }
    effects_->record({now_, std::move(record)});
}

void Shard::reply_to_push(const Envelope& from, const Push& body,
                          const std::vector<BlockVerdict>& verdicts) {
    PushReply answer;
    answer.step = body.step;
    answer.part = body.part;
    answer.verdicts = verdicts;
    if (body.opens.value != 0) {
        if (beyond_gate(from, body.opens)) {
            auto& waiting = let_wait_[WorkerId{from.from.index}].pushes;
            const bool waits_already =
                std::any_of(waiting.begin(), waiting.end(), [&](const auto& one) {
                    return one.second.step == body.step && one.second.part == body.part;
                });
            if (!waits_already) {
                waiting.emplace_back(from, body);
                waiting.back().second.blocks.clear();
            }
            return wait(from, body.step, body.part, 0, WaitFor::release);
        }
        if (!open_step(from, body.opens, body.part)) return;
        answer.opened = body.opens;
        std::vector<LiveBlock*> blocks;
        blocks.reserve(verdicts.size());
        for (const BlockVerdict& verdict : verdicts) blocks.push_back(store_.find(verdict.block));
        answer.blocks = weights_of(blocks, WorkerId{from.from.index});
        record_pull(from, body.opens, blocks);
    }
    reply(from, std::move(answer));
}

}  // namespace detente
