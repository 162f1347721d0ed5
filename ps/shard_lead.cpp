// What a shard tells the lead, and the lead shard's own affairs: who is a member, sending what was
// decided, and sending it again until every shard has it.
#include "ps/shard.h"

namespace detente {
namespace {

constexpr std::size_t kDecisionsAtOnce = 32;

}  // namespace

void Shard::notify_lead(StagedStep& step) {
    if (setup_.id == kLeadShard) {
        Envelope self;
        self.from = node_of(kLeadShard);
        return stage_notice(self, step.notice);
    }
    Message message;
    message.envelope.shard_epoch = setup_.epoch;
    message.body = step.notice;
    effects_->send(node_of(kLeadShard), std::move(message));
}

void Shard::stage_notice(const Envelope& from, const StageNotice& notice) {
    if (lead_ == nullptr) return;
    Lead::Standing standing;
    for (const LiveBlock& block : store_.blocks()) {
        if (block.plan->frozen) continue;
        standing.updates = block.updates;
        standing.samples_applied = block.samples_applied;
        standing.learning_rate = store_.learning_rate(block);
        break;
    }
    const std::uint64_t total = leases_.total();
    standing.progress =
        total == 0 ? 0 : static_cast<double>(leases_.finished()) / static_cast<double>(total);
    standing.at_s = as_seconds(now_);
    lead_->noticed(ShardId{from.from.index}, notice, standing);
}

// Decisions lead to opened steps, and those to further events for the policy: until nothing is new.
void Shard::lead_on() {
    if (lead_ == nullptr) return;
    if (decides_steps()) lead_membership();
    Envelope self;
    self.from = node_of(kLeadShard);
    for (std::vector<StageDecision> fresh = lead_->decisions(); !fresh.empty();
         fresh = lead_->decisions()) {
        for (StageDecision& decision : fresh) {
            for (std::uint32_t shard = 0; shard < setup_.job->shards(); ++shard) {
                if (ShardId{shard} == setup_.id) continue;
                Message message;
                message.envelope.shard_epoch = setup_.epoch;
                message.body = decision;
                effects_->send(node_of(ShardId{shard}), std::move(message));
            }
            take_decision(self, std::move(decision));
        }
        repeat_later();
    }
    for (const WorkerId worker : lead_->restarts()) {
        const auto opened = opened_.find(worker);
        if (opened == opened_.end()) continue;
        Envelope to;
        to.from = node_of(worker);
        reply(to, Restart{opened->second});
    }
}

// A worker for which there is no batch will not push: nobody may wait for it.
void Shard::lead_membership() {
    for (const auto& [worker, incarnation] : workers_) {
        if (leases_.idle(worker)) {
            lead_->left(worker);
        } else if (!duplicates_.has_left(worker)) {
            lead_->joined(worker);
        }
    }
}

void Shard::repeat_unanswered() {
    store_.reclaim();
    act();
    if (!decisions_.empty() && decisions_.begin()->first == acted_ + 1 &&
        is_due(decisions_.begin()->second)) {
        effects_->log(LogLevel::warning,
                      "decision " + std::to_string(acted_ + 1) + " of the lead shard waits for " +
                          "spare buffers: " + std::to_string(store_.lent()) +
                          " are held by replies that have not left yet or a checkpoint");
    }
    for (auto& [id, step] : staged_) {
        if (step.complete() && setup_.id != kLeadShard) notify_lead(step);
    }
    if (lead_ == nullptr) return;
    resend_decisions();
    restart_idle();
}

void Shard::repeat_later() {
    if (std::exchange(repeats_, true)) return;
    effects_->after(setup_.job->reply_deadline / 2, {kRepeat, 0});
}

void Shard::resend_decisions() {
    for (std::uint32_t shard = 0; shard < setup_.job->shards(); ++shard) {
        if (ShardId{shard} == setup_.id) continue;
        for (StageDecision& decision : lead_->unconfirmed(ShardId{shard}, kDecisionsAtOnce)) {
            Message message;
            message.envelope.shard_epoch = setup_.epoch;
            message.body = std::move(decision);
            effects_->send(node_of(ShardId{shard}), std::move(message));
        }
    }
}

}  // namespace detente
