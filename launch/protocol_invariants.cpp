#include "launch/protocol_invariants.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/ledger_controls.h"

namespace detente {

std::string text_of(WorkerId worker, Incarnation incarnation, Step step) {
    return fmt::format("worker:{} incarnation {} step {}", worker.value, incarnation.value,
                       step.value);
}

Result<std::unique_ptr<ProtocolInvariants>> ProtocolInvariants::create(
    const Job& job, std::shared_ptr<const Plan> plan) {
    std::unique_ptr<ProtocolInvariants> made(new ProtocolInvariants(job, std::move(plan)));
    made->steps_ = decides_steps(job);
    for (const Block& block : made->plan_->blocks) made->trainable_ += block.trainable() ? 1 : 0;
    made->clocks_ = ClockInvariants::create(job);
    std::vector<const PolicyConfig*> policies{&job.policy};
    for (const PolicyFor& special : job.policy_for) policies.push_back(&special.policy);
    for (const PolicyConfig* config : policies) {
        auto policy = make_policy(*config);
        if (policy.has_error()) return policy.error();
        made->policies_.push_back(std::move(*policy));
    }
    std::vector<const RuleConfig*> rules{&job.rule};
    for (const RuleFor& special : job.rule_for) rules.push_back(&special.rule);
    for (const RuleConfig* config : rules) {
        auto rule = make_rule(*config);
        if (rule.has_error()) return rule.error();
        made->rules_.push_back(std::move(*rule));
        made->clip_values_.push_back(static_cast<float>(config->clip_value));
    }
    return made;
}

void ProtocolInvariants::fail_with(std::string text) {
    if (!broken_) broken_ = std::move(text);
}

// ---- what leaves nodes ----

void ProtocolInvariants::sent(const Message& message) {
    const Envelope& envelope = message.envelope;
    const auto* push = std::get_if<Push>(&message.body);
    if (push != nullptr) computed_at(envelope.from, envelope.incarnation, *push);
    if (push != nullptr) {
        for (const GradientBlock& block : push->blocks) {
            const BlockUpdate update{WorkerId{envelope.from.index}, envelope.incarnation,
                                     push->step, block.block};
            // The first sending counts: a re-sent part is the same one.
            if (!applied_.contains(update)) gradients_.try_emplace(update, block.gradient);
        }
    }
    if (const auto* decision = std::get_if<StageDecision>(&message.body)) {
        scopes_.decided(*decision);
    }
    const auto newer = [this](const WeightBlock& block) {
        const Followed& followed = blocks_[block.block];
        return followed.known &&
               std::pair(block.epoch, block.version) > std::pair(followed.epoch, followed.version);
    };
    const auto check_weights = [&](const std::vector<WeightBlock>& blocks) {
        const auto found = std::find_if(blocks.begin(), blocks.end(), newer);
        if (found == blocks.end()) return;
        fail_with(fmt::format("{} hands out version {} of block {}, which is at {}",
                              to_string(envelope.from), found->version.value, found->block.value,
                              blocks_[found->block].version.value));
    };
    if (const auto* reply = std::get_if<PullReply>(&message.body)) check_weights(reply->blocks);
    const auto* reply = std::get_if<PushReply>(&message.body);
    if (reply == nullptr) return;
    check_weights(reply->blocks);
    for (const BlockVerdict& verdict : reply->verdicts) {
        if (verdict.verdict != Verdict::applied) continue;
        if (acknowledgeable_.contains({WorkerId{envelope.to.index}, reply->step, verdict.block})) {
            continue;
        }
        fail_with(fmt::format(
            "{} acknowledges block {} of worker:{} step {} as applied, which its "
            "ledger does not have",
            to_string(envelope.from), verdict.block.value, envelope.to.index, reply->step.value));
    }
}

// ---- what shards write down ----

void ProtocolInvariants::recorded(NodeId shard, const LedgerEntry& entry) {
    if (shard.role != Role::shard) return;
    if (const auto* record = std::get_if<VerdictRecord>(&entry.record)) {
        fail_if(scopes_.judged(shard, *record));
        verdict(shard, *record);
    }
    if (const auto* record = std::get_if<PullRecord>(&entry.record)) {
        handed_out(*record);
        fail_if(scopes_.handed_out(shard, *record));
        if (clocks_ != nullptr) clocks_->pulled(shard, *record);
    }
    if (const auto* record = std::get_if<LostRecord>(&entry.record)) {
        told_[shard].lost += record->blocks.size();
        listed_as_lost(*record);
    }
    constexpr std::string_view kCheckpoint = "checkpoint ";
    const auto* control = std::get_if<ControlRecord>(&entry.record);
    if (control != nullptr && control->what.starts_with(kCheckpoint)) {
        keep_checkpoint(shard, std::stoull(control->what.substr(kCheckpoint.size())));
    }
    if (const auto worker = control == nullptr ? std::nullopt : forgotten_worker(*control)) {
        forgotten(shard, *worker);
    }
    if (const auto change = control == nullptr ? std::nullopt : changed_policy(*control)) {
        scopes_.changed(shard);
        policy_changes(shard, *change);
    }
    const auto* closed = std::get_if<ClosedRecord>(&entry.record);
    if (closed == nullptr) return;
    (closed->lost ? told_[shard].lost : told_[shard].cancelled) += closed->blocks;
    if (clocks_ != nullptr) clocks_->closed(*closed);
    // Under step scope a staged push outlives its worker, and may be applied yet.
    if (!steps_ && !scope_changed_) {
        const auto of_step = [&](const auto& kept) {
            const auto& [worker, incarnation, step, block] = kept.first;
            return worker == closed->worker && incarnation == closed->incarnation &&
                   step == closed->step && plan_->block(block).home == ShardId{shard.index};
        };
        std::erase_if(gradients_, of_step);
    }
}

void ProtocolInvariants::handed_out(const PullRecord& record) {
    for (std::size_t i = 0; i < record.blocks.size(); ++i) {
        Followed& followed = blocks_[record.blocks[i]];
        if (!followed.known || record.epoch != followed.epoch) continue;
        hand_out(record.blocks[i], record.worker, followed);
        if (record.versions[i] == followed.version) continue;
        fail_with(fmt::format("{} was given block {} at version {}; its updates so far make {}",
                              text_of(record.worker, record.incarnation, record.step),
                              record.blocks[i].value, record.versions[i].value,
                              followed.version.value));
    }
}

void ProtocolInvariants::verdict(NodeId shard, const VerdictRecord& record) {
    if (of_step(record)) same_everywhere(shard, record);
    Books& told = told_[shard];
    for (const VerdictRecord::Row& one : record.rows) {
        told.applied += one.verdict == Verdict::applied ? 1 : 0;
        told.rejected += one.verdict == Verdict::rejected ? 1 : 0;
        told.lost += one.verdict == Verdict::lost ? 1 : 0;
        row(record, one);
    }
}

void ProtocolInvariants::row(const VerdictRecord& record, const VerdictRecord::Row& row) {
    Followed& followed = blocks_[row.block];
    if (!followed.known || record.epoch != followed.epoch) return;
    if (row.verdict == Verdict::applied) return applied(record, row, followed);
    gradients_.erase({record.worker, record.incarnation, record.step, row.block});
    if (row.verdict != Verdict::rejected) return;
    if (row.version != followed.version) {
        fail_with(fmt::format("{}: rejecting it moved block {} from version {} to {}",
                              text_of(record), row.block.value, followed.version.value,
                              row.version.value));
    }
    if (row.reason == ErrorCode::over_limit) past_bound(record, row);
}

void ProtocolInvariants::applied(const VerdictRecord& record, const VerdictRecord::Row& row,
                                 Followed& followed) {
    const Update update{record.worker, record.incarnation, record.step};
    const BlockUpdate one{record.worker, record.incarnation, record.step, row.block};
    if (!applied_.try_emplace(one, record.epoch, row.version).second) {
        fail_with(fmt::format("{}: block {} applied twice", text_of(record), row.block.value));
    }
    acknowledgeable_.insert({record.worker, record.step, row.block});
    // An average is one update: the pushes in it are recorded one after the other.
    const bool averaged = of_step(record) && row.version == followed.version && followed.last &&
                          *followed.last != update;
    if (!averaged && row.version.value != followed.version.value + 1) {
        fail_with(fmt::format("{}: block {} went from version {} to {}", text_of(record),
                              row.block.value, followed.version.value, row.version.value));
    }
    followed.last = update;
    within_bound(record, row);
    if (!averaged) fold(row.block, followed);
    keep(one, record, row, followed);
    followed.version = row.version;
}

void ProtocolInvariants::same_everywhere(NodeId shard, const VerdictRecord& record) {
    const Verdict verdict = record.rows.front().verdict;
    if (verdict != Verdict::applied && verdict != Verdict::rejected) return;
    const Update update{record.worker, record.incarnation, record.step};
    const auto [known, first] = decided_.try_emplace(update, verdict);
    if (!first && known->second != verdict) {
        fail_with(fmt::format("{}: {} on {}, {} elsewhere", text_of(record), name_of(verdict),
                              to_string(shard), name_of(known->second)));
    }
    if (verdict != Verdict::applied) return;
    const auto last = last_on_.find(shard);
    if (last != last_on_.end() && last->second == update) return;  // its next part
    last_on_[shard] = update;
    const std::size_t position = position_[shard]++;
    if (position == order_.size()) {
        order_.push_back(update);
    } else if (order_[position] != update) {
        const auto& [worker, incarnation, step] = order_[position];
        fail_with(fmt::format("{} applies {} as its number {}, where others applied {}",
                              to_string(shard), text_of(record), position,
                              text_of(worker, incarnation, step)));
    }
}

// ---- what shards hold ----

void ProtocolInvariants::follow(Followed& followed, const LiveBlock& block) {
    restored(block);
    followed.known = true;
    followed.epoch = block.epoch;
    followed.version = block.version;
    followed.updates = block.updates;
    followed.last.reset();
    followed.parts.clear();
    followed.samples = 0;
    followed.samples_applied = block.samples_applied;
    const auto copied = [](const AlignedBuffer& bytes) {
        auto copy = std::make_unique<AlignedBuffer>(bytes.size());
        if (bytes.size() > 0) std::memcpy(copy->data(), bytes.data(), bytes.size());
        return copy;
    };
    followed.weights = copied(*block.weights);
    followed.slots = copied(*block.slots);
    followed.memory.restore(block.memory.save());
    followed.policy_state = block.policy_state;
    followed.vectors.restore(block.vectors.save());
}

void ProtocolInvariants::compare(const LiveBlock& block) {
    Followed& followed = blocks_[block.plan->id];
    if (!followed.known || followed.epoch != block.epoch) return follow(followed, block);
    if (followed.version != block.version) {
        fail_with(fmt::format("block {} is at version {}, its ledger says {}", block.plan->id.value,
                              block.version.value, followed.version.value));
        return;
    }
    if (!followed.last) return;
    followed.last.reset();  // looked at once per update
    fold(block.plan->id, followed);
    if (std::memcmp(followed.weights->data(), block.weights->data(), block.plan->bytes()) != 0) {
        fail_with(
            fmt::format("block {} at version {}: its weights are not what its updates make "
                        "of the first ones",
                        block.plan->id.value, block.version.value));
    }
}

// What it wrote down makes its books. What is on its way through them is not written down yet.
void ProtocolInvariants::compare_books(NodeId id, Shard& shard) {
    const Books& books = shard.books();
    Books& told = told_[id];
    if (not_started_.erase(id) > 0) {
        if (from_elsewhere_) told = books;
        all_listed(id);
    }
    if (books.applied == told.applied && books.rejected == told.rejected &&
        books.cancelled == told.cancelled && books.lost == told.lost) {
        return;
    }
    fail_with(
        fmt::format("its books have {} applied, {} rejected, {} cancelled, {} lost; its "
                    "ledger tells of {}, {}, {} and {}",
                    books.applied, books.rejected, books.cancelled, books.lost, told.applied,
                    told.rejected, told.cancelled, told.lost));
}

std::optional<std::string> ProtocolInvariants::after(NodeId id, Shard& shard) {
    if (shard.store().initialised()) {
        for (const LiveBlock& block : shard.store().blocks()) compare(block);
    }
    compare_books(id, shard);
    if (clocks_ != nullptr) fail_if(clocks_->after(shard.lead()));
    return broken_;
}

}  // namespace detente
