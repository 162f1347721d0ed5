// Step scope at a shard: pushes are staged, the lead shard decides, all shards act on its decisions
// in the order of their numbers.
//
// Transport may lose, double and reorder all of it: notices repeat until the step is decided,
// decisions until they are confirmed, and a worker asks again with a push without blocks.
#include <algorithm>
#include <cmath>

#include "common/checksum.h"
#include "common/invariant.h"
#include "ps/shard.h"

namespace detente {
namespace {

constexpr std::size_t kMostWaiting = 4096;

Push header_of(const Push& push) {
    Push header = push;
    header.blocks.clear();
    return header;
}

}  // namespace

void Shard::wait(const Envelope& to, Step step, Part part, std::uint32_t request, WaitFor why) {
    reply(to, Wait{step, part, request, why});
}

// bad_checksum: altered on its way; not_finite, wrong_epoch: the step is to be refused.
Result<void> Shard::check_gradients(const Push& body, const std::vector<LiveBlock*>& blocks,
                                    WorkerId worker) const {
    Result<void> sound;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const GradientBlock& gradient = body.blocks[i];
        const std::string name = "step " + std::to_string(body.step.value) + ", block " +
                                 std::to_string(gradient.block.value) + ": ";
        auto verified = verify_block(gradient.gradient.bytes, gradient.checksum);
        if (!verified && verified.error().code != ErrorCode::not_finite) return verified;
        if (!verified) {
            sound = fail(ErrorCode::not_finite,
                         name + verified.error().text + "; nothing of that step is applied");
        } else if (sound && (gradient.epoch != blocks[i]->epoch ||
                             !store_.can_correct(*blocks[i], worker, gradient.base))) {
            sound = fail(ErrorCode::wrong_epoch, name + "computed at weights of another epoch");
        }
    }
    return sound;
}

Result<void> Shard::StagedStep::agrees_with(const Push& push) const {
    const Push& first = parts.front().push;
    if (push.parts == first.parts && push.samples == first.samples && push.batch == first.batch &&
        push.gradient_hash == first.gradient_hash) {
        return {};
    }
    return fail(ErrorCode::bad_message,
                "part " + std::to_string(push.part.value) + " of step " +
                    std::to_string(push.step.value) + " (of " + std::to_string(push.parts) +
                    " parts, " + std::to_string(push.samples) + " samples) contradicts part " +
                    std::to_string(first.part.value) + " (of " + std::to_string(first.parts) +
                    ", " + std::to_string(first.samples) + ")");
}

std::uint64_t Shard::staged_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [id, step] : staged_) bytes += step.notice.staged_bytes;
    return bytes;
}

void Shard::stage(const Envelope& from, const Push& body) {
    const WorkerId worker{from.from.index};
    const PushId id{worker, from.incarnation, body.step};
    const auto known = staged_.find(id);
    if (known != staged_.end()) {
        const bool here =
            std::any_of(known->second.parts.begin(), known->second.parts.end(),
                        [&](const StagedPart& part) { return part.push.part == body.part; });
        if (here) {
            ++repeated_;
            wait(from, body.step, body.part, 0, WaitFor::verdict);
            return;
        }
    }
    const bool lost = duplicates_.lost_by_restore(worker, body.step);
    if (!lost && duplicates_.settled(worker, body.step) && known == staged_.end()) {
        ++repeated_;  // late double of a settled step: nobody waits
        return;
    }
    if (body.blocks.empty()) {
        wait(from, body.step, body.part, 0, WaitFor::push_again);
        return;
    }
    std::vector<LiveBlock*> blocks;
    if (auto checked = check_part(body, blocks); !checked) {
        refuse(from, checked.error(), body.step, body.part);
        return;
    }
    if (!store_.initialised()) {
        refuse(from, fail(ErrorCode::wrong_epoch, "this shard has no weights yet"), body.step,
               body.part);
        return;
    }
    if (lost) return answer_lost(from, body, blocks);
    if (known != staged_.end()) {
        if (auto agrees = known->second.agrees_with(body); !agrees) {
            refuse(from, agrees.error(), body.step, body.part);
            return;
        }
    }
    Result<void> sound = check_gradients(body, blocks, worker);
    if (!sound && sound.error().code == ErrorCode::bad_checksum) {  // altered: ask again
        refuse(from, sound.error(), body.step, body.part);
        return;
    }
    if (!open_step(from, body.step, body.part)) return;
    if (auto fits = duplicates_.fits(worker, body.step, body.blocks); !fits) {
        refuse(from, fits.error(), body.step, body.part);
        return;
    }
    StagedStep& step = keep_part(from, body, blocks, std::move(sound));
    const auto aborted = aborted_.find(id);
    if (aborted != aborted_.end()) {  // the others were faster: its fate is known
        Answers answers;
        abort(StepAbort(aborted->second.first), aborted->second.second, answers);
        for (const auto& [to, push] : answers) answer(to, push);
        return;
    }
    wait(from, body.step, body.part, 0, WaitFor::verdict);
    if (step.complete()) notify_lead(step);
}

// Of a part that is whole and true, or whose step is to be refused: `sound` says which.
Shard::StagedStep& Shard::keep_part(const Envelope& from, const Push& body,
                                    const std::vector<LiveBlock*>& blocks, Result<void> sound) {
    const WorkerId worker{from.from.index};
    const PushId id{worker, from.incarnation, body.step};
    ++pushes_;
    std::uint64_t bytes = 0;
    for (const GradientBlock& gradient : body.blocks) bytes += gradient.gradient.size();
    push_bytes_ += bytes;
    if (auto staged = duplicates_.stage(worker, body.step, body.blocks.size()); !staged) {
        invariant(false, "a step stages no more blocks than it opened");
    }
    StagedStep& step = staged_[id];
    // No policy of steps: what is left of one that was aborted before block scope began.
    if (sound && decides_steps() && store_.step_policy()->needs().measures) {
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const Measured sums = store_.measure(*blocks[i], worker, body.blocks[i].base,
                                                 body.blocks[i].gradient.bytes.data());
            if (!std::isfinite(sums.gradient_sq) || !std::isfinite(sums.weights_sq)) {
                // No notice could carry it, and no policy judge by it.
                sound = fail(ErrorCode::not_finite,
                             "block " + std::to_string(body.blocks[i].block.value) +
                                 ": its weights or this gradient have overflowed");
                break;
            }
            step.notice.sums.push_back({body.blocks[i].block, sums.gradient_sq, sums.weights_sq});
        }
    }
    step.expected = body.parts;
    step.parts.push_back({from, body, now_});
    step.blocks += body.blocks.size();
    if (sound && step.complete() && step.blocks < store_.trainable()) {
        // An update is of all blocks, or the shards' versions would no longer be the model's.
        sound = fail(ErrorCode::bad_message, "step " + std::to_string(body.step.value) + " has " +
                                                 std::to_string(step.blocks) + " of the " +
                                                 std::to_string(store_.trainable()) + " blocks");
    }
    step.notice.push = id;
    step.notice.samples = body.samples;
    step.notice.staged_bytes += bytes;
    std::uint64_t oldest = 0;  // a pull of several pieces may have brought several versions
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        const GradientBlock& gradient = body.blocks[i];
        if (gradient.epoch != blocks[i]->epoch) continue;
        oldest = std::max(oldest, blocks[i]->version.value - gradient.base.value);
    }
    const std::uint64_t version = model_version_ - std::min(model_version_, oldest);
    step.notice.version = step.parts.size() == 1 ? version : std::min(step.notice.version, version);
    if (!sound) {
        step.refused = true;
        step.notice.staged = false;
        step.notice.reason = sound.error().code;
        if (step.notice.reason != ErrorCode::wrong_epoch) count_refused(from, sound.error());
    }
    return step;
}

void Shard::take_decision(const Envelope& from, StageDecision&& decision) {
    const Epoch lead_epoch = decision.sequence.lead_epoch;
    if (lead_epoch != setup_.epoch) {  // numbers mean something within an epoch only
        count_refused(from,
                      fail(ErrorCode::wrong_epoch,
                           "a decision of epoch " + std::to_string(lead_epoch.value) +
                               ", this shard is in epoch " + std::to_string(setup_.epoch.value)));
        return;
    }
    const std::uint64_t number = decision.sequence.number;
    // The one that is due is always taken; what comes before its turn within a bound.
    // The lead's own are never sent again, and what it waits with is bounded by its members.
    const bool room = setup_.id == kLeadShard || decisions_.size() < kMostWaiting;
    if (number == acted_ + 1 || (number > acted_ && room)) {
        decisions_.emplace(number, std::move(decision));
        act();
    }
    if (setup_.id == kLeadShard) return;
    Message message;
    message.body = StageReply{{lead_epoch, acted_}};
    effects_->send(node_of(kLeadShard), std::move(message));
}

void Shard::act() {
    while (!decisions_.empty() && decisions_.begin()->first == acted_ + 1) {
        const StageDecision& due = decisions_.begin()->second;
        if (!is_due(due)) return;
        for (; commits_done_ < due.commits.size(); ++commits_done_) {
            if (commit(due.commits[commits_done_], due.sequence)) continue;
            const bool gained = copy_cuts() && commit(due.commits[commits_done_], due.sequence);
            if (!gained) return;  // no spare: when one comes back
        }
        for (const StepAbort& one : due.aborts) abort(one, due.sequence, to_answer_);
        for (const PushId& id : due.buffered) {
            const auto staged = staged_.find(id);
            if (staged == staged_.end()) continue;
            staged->second.buffered = true;
            for (StagedPart& part : staged->second.parts) {
                std::vector<BlockVerdict> verdicts;
                for (const GradientBlock& gradient : part.push.blocks) {
                    const LiveBlock& block = *store_.find(gradient.block);
                    verdicts.push_back({gradient.block, Verdict::buffered, Advice::none,
                                        ErrorCode::internal, 0, 1, block.epoch, block.version});
                }
                duplicates_.decide(id, part.push.part, std::move(verdicts));
                to_answer_.emplace_back(part.from, header_of(part.push));
            }
        }
        for (const PolicyChange& change : due.changes) adopt(change, due.sequence);
        for (const CheckpointRequest& one : due.checkpoints) slice_in_order(one);
        for (const WorkerId worker : due.hold) held_[worker];
        for (const PushId& step : due.cuts) make_cut(step);
        const std::vector<WorkerId> released = due.release;
        decisions_.erase(decisions_.begin());
        commits_done_ = 0;
        ++acted_;
        for (const auto& [from, push] : std::exchange(to_answer_, {})) answer(from, push);
        for (const WorkerId worker : released) release(worker);
        if (lead_ != nullptr) lead_->applied(setup_.id, {setup_.epoch, acted_});
    }
}

bool Shard::commit(const StepCommit& commit, Sequence decision) {
    if (store_.trainable() == 0) {  // nothing is ever pushed here
        model_version_ = commit.version;
        return true;
    }
    std::vector<LiveBlock*> blocks;
    std::vector<std::map<PushId, StagedStep>::iterator> steps;
    for (const StagedPush& one : commit.pushes) {
        const auto staged = staged_.find(one.push);
        invariant(staged != staged_.end() && staged->second.complete(),
                  "what is committed was staged on every shard");
        steps.push_back(staged);
    }
    for (const StagedPart& part : steps.front()->second.parts) {
        for (const GradientBlock& gradient : part.push.blocks) {
            blocks.push_back(store_.find(gradient.block));
        }
    }
    if (!store_.can_apply(blocks)) return false;

    std::map<BlockId, std::vector<BlockStore::Part>> gradients;
    std::map<BlockId, double> rates;
    std::uint32_t samples = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        const PushId& id = steps[i]->first;
        samples += steps[i]->second.notice.samples;
        for (const StagedPart& part : steps[i]->second.parts) {
            for (const GradientBlock& gradient : part.push.blocks) {
                const LiveBlock& block = *store_.find(gradient.block);
                BlockStore::Part one;
                one.gradient = gradient.gradient.bytes.data();
                one.weight = commit.pushes[i].gradient_weight;
                one.base = gradient.base;
                one.arrived = store_.arrival(block, id.worker, id.step,
                                             block.version.value - gradient.base.value);
                gradients[gradient.block].push_back(one);
            }
        }
    }
    for (LiveBlock* block : blocks) {
        rates[block->plan->id] = store_.learning_rate(*block);
        store_.apply_parts(*block, gradients[block->plan->id], commit.denominator,
                           commit.step_scale, samples);
    }
    model_version_ = commit.version;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        StagedStep& step = steps[i]->second;
        for (StagedPart& part : step.parts) {
            std::vector<BlockVerdict> verdicts;
            for (const GradientBlock& gradient : part.push.blocks) {
                const LiveBlock& block = *store_.find(gradient.block);
                const std::uint64_t staleness = block.version.value - 1 - gradient.base.value;
                verdicts.push_back({gradient.block, Verdict::applied, Advice::none,
                                    ErrorCode::internal, staleness, commit.step_scale, block.epoch,
                                    block.version});
                count_staleness(staleness_, staleness);
                staleness_sum_ += static_cast<double>(staleness);
                staleness_max_ = std::max(staleness_max_, staleness);
            }
            decide_part(steps[i]->first, part, std::move(verdicts), rates,
                        {decision, commit.pushes[i].gradient_weight, commit.denominator});
            if (!step.buffered) to_answer_.emplace_back(part.from, header_of(part.push));
        }
        const PushId id = steps[i]->first;
        staged_.erase(steps[i]);
        forget_if_gone(id.worker);
    }
    return true;
}

void Shard::abort(const StepAbort& abort, Sequence decision, Answers& answers) {
    const auto staged = staged_.find(abort.push);
    std::size_t decided = 0;
    if (staged != staged_.end()) {
        StagedStep& step = staged->second;
        for (StagedPart& part : step.parts) {
            std::vector<BlockVerdict> verdicts;
            for (const GradientBlock& gradient : part.push.blocks) {
                const LiveBlock& block = *store_.find(gradient.block);
                const Verdict verdict =
                    abort.reason == ErrorCode::peer_lost ? Verdict::lost : Verdict::rejected;
                const std::uint64_t staleness =
                    gradient.epoch == block.epoch ? block.version.value - gradient.base.value : 0;
                verdicts.push_back({gradient.block, verdict, abort.advice, abort.reason, staleness,
                                    1, block.epoch, block.version});
                ++decided;
            }
            decide_part(abort.push, part, std::move(verdicts), {}, {decision});
            if (!step.buffered) answers.emplace_back(part.from, header_of(part.push));
        }
        staged_.erase(staged);
        forget_if_gone(abort.push.worker);
    }
    // Parts that are still on their way will find what became of their step; those of a worker
    // that is gone are refused anyway.
    const auto known = workers_.find(abort.push.worker);
    const bool may_come = known != workers_.end() && known->second == abort.push.incarnation;
    if (decided < store_.trainable() && may_come) aborted_[abort.push] = {abort, decision};
}

// A policy's vectors of a worker that is gone go when nothing staged of it needs them any more.
void Shard::forget_if_gone(WorkerId worker) {
    if (workers_.contains(worker)) return;
    const auto staged = staged_.lower_bound(PushId{worker, Incarnation{0}, Step{0}});
    if (staged != staged_.end() && staged->first.worker == worker) return;
    if (store_.forget(worker)) record_control(worker_forgotten(worker).what);
}

void Shard::acknowledge(WorkerId worker, Step step) {
    duplicates_.acknowledge(worker, step);
    drop_cut(worker, step);
    if (aborted_.empty()) return;
    std::erase_if(aborted_, [&](const auto& entry) {
        return entry.first.worker == worker && entry.first.step <= step;
    });
}

void Shard::decide_part(const PushId& push, StagedPart& part, std::vector<BlockVerdict> verdicts,
                        const std::map<BlockId, double>& rates, const Folded& folded) {
    std::vector<double> applied_at;
    for (const BlockVerdict& verdict : verdicts) {
        const auto rate = rates.find(verdict.block);
        applied_at.push_back(rate == rates.end() ? 0 : rate->second);
    }
    record_push(part.from, part.push, verdicts, applied_at, folded, part.arrived);
    duplicates_.decide(push, part.push.part, std::move(verdicts));
}

void Shard::answer(const Envelope& from, const Push& push) {
    const WorkerId worker{from.from.index};
    const auto known = workers_.find(worker);
    if (known == workers_.end() || known->second != from.incarnation) return;  // it is gone
    if (held(worker)) {
        auto& waiting = held_[worker].pushes;
        const bool waits_already =
            std::any_of(waiting.begin(), waiting.end(), [&](const auto& one) {
                return one.second.step == push.step && one.second.part == push.part;
            });
        if (!waits_already) waiting.emplace_back(from, push);
        return wait(from, push.step, push.part, 0, WaitFor::release);
    }
    if (const auto* verdicts = duplicates_.judged(worker, push.step, push.part)) {
        reply_to_push(from, push, *verdicts);
    }
}

void Shard::release(WorkerId worker) {
    const auto found = held_.find(worker);
    if (found == held_.end()) return;
    HeldWorker waiting = std::move(found->second);
    held_.erase(found);
    for (const auto& [from, push] : waiting.pushes) answer(from, push);
    for (const auto& [number, asked] : waiting.asked) pull(asked.first, asked.second);
}

void Shard::drop_incomplete(WorkerId worker, Incarnation incarnation) {
    held_.erase(worker);
    std::erase_if(aborted_, [&](const auto& entry) {
        return entry.first.worker == worker && entry.first.incarnation <= incarnation;
    });
    for (auto at = staged_.begin(); at != staged_.end();) {
        const PushId id = at->first;
        if (id.worker != worker || incarnation < id.incarnation || at->second.complete()) {
            ++at;
            continue;
        }
        for (StagedPart& part : at->second.parts) lose_part(id, part);
        at = staged_.erase(at);
    }
}

void Shard::lose_part(const PushId& push, StagedPart& part) {
    std::vector<BlockVerdict> verdicts;
    for (const GradientBlock& gradient : part.push.blocks) {
        const LiveBlock& block = *store_.find(gradient.block);
        verdicts.push_back({gradient.block, Verdict::lost, Advice::none, ErrorCode::peer_lost, 0, 1,
                            block.epoch, block.version});
    }
    decide_part(push, part, std::move(verdicts), {}, {});
}

std::vector<Duplicates::ClosedBy> Shard::kept_steps() const {
    std::vector<Duplicates::ClosedBy> kept;
    for (const auto& [id, step] : staged_) {
        std::uint32_t blocks = 0;
        for (const StagedPart& part : step.parts) {
            blocks += static_cast<std::uint32_t>(part.push.blocks.size());
        }
        kept.push_back({id.worker, id.incarnation, {id.step, blocks}});
    }
    return kept;
}

}  // namespace detente
