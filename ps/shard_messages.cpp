// Everything a shard is told besides pushes: first weights, pulls, leases, farewells, checkpoints.
#include <cstring>

#include "common/checksum.h"
#include "common/codec/codec.h"
#include "common/partition/task_placement.h"
#include "ps/checkpoint.h"
#include "ps/policy_saved.h"
#include "ps/shard.h"

namespace detente {

void Shard::welcomed() {
    if (welcomed_) return;
    welcomed_ = true;
    if (setup_.id != kLeadShard) {
        // The lead has no connection of its own to the other shards: it can tell those something
        // that it has heard from.
        Message greeting;
        greeting.body = StageReply{{setup_.epoch, acted_}};
        effects_->send(node_of(kLeadShard), std::move(greeting));
    }
    if (!store_.initialised()) return;
    Message message;
    message.body = Ready{};
    effects_->send(kCoordinator, std::move(message));
}

void Shard::initialise(const Envelope& from, const Initialise& body) {
    if (!store_.initialised()) {
        for (const WeightBlock& first : body.blocks) {
            LiveBlock* block = store_.find(first.block);
            if (block == nullptr) {
                refuse(from,
                       fail(ErrorCode::unknown_block, "first weights of block " +
                                                          std::to_string(first.block.value) +
                                                          ", which does not live here"),
                       Step{}, body.part);
                return;
            }
            if (auto verified = verify_block(first.weights.bytes, first.checksum); !verified) {
                refuse(from, verified.error(), Step{}, body.part);
                return;
            }
            if (block->weights != nullptr) continue;
            BlockContents contents;
            contents.weights = first.weights;
            if (auto filled = store_.fill(*block, contents); !filled) {
                refuse(from, filled.error(), Step{}, body.part);
                return;
            }
        }
        if (store_.initialised() && welcomed_) {
            record_control("initialised by " + to_string(from.from));
            Message message;
            message.body = Ready{};
            effects_->send(kCoordinator, std::move(message));
        }
    }
    reply(from, InitialiseReply{body.part});
}

bool Shard::open_step(const Envelope& from, Step step, Part part) {
    const WorkerId worker{from.from.index};
    auto opened = duplicates_.open(worker, step);
    if (opened) {
        if (lead_ != nullptr && *opened == Duplicates::Opening::opened) {
            opened_[worker] = step;
            lead_->pulled(worker, step);
        }
        return true;
    }
    refuse(from, opened.error(), step, part);
    return false;
}

// Small blocks are copied side by side into one buffer (one frame); large ones are shared as they
// are.
std::vector<WeightBlock> Shard::weights_of(const std::vector<LiveBlock*>& blocks, WorkerId worker) {
    std::size_t small_bytes = 0;
    for (const LiveBlock* block : blocks) {
        if (block->plan->bytes() < kSmallBlockBytes) small_bytes += block->plan->bytes();
    }
    auto small = small_bytes > 0 ? std::make_shared<AlignedBuffer>(small_bytes) : nullptr;
    std::size_t at = 0;
    std::vector<WeightBlock> weights;
    weights.reserve(blocks.size());
    for (LiveBlock* block : blocks) {
        WeightBlock one{block->plan->id, block->epoch, block->version, {}, std::nullopt};
        // "auto" is the transport's to decide, peer by peer: then the codec makes it if need be.
        const Payload handed_out = store_.hand_out(*block, worker);
        const bool as_stored = handed_out.bytes.data() == block->weights->data();
        if (setup_.job->checksum == ChecksumMode::on && as_stored) {
            one.checksum = block->weight_checksum();
        }
        const std::size_t bytes = block->plan->bytes();
        if (bytes < kSmallBlockBytes) {
            std::memcpy(small->data() + at, handed_out.bytes.data(), bytes);
            one.weights = {small, {small->data() + at, bytes}};
            at += bytes;
        } else {
            one.weights = handed_out;
        }
        weights.push_back(std::move(one));
    }
    return weights;
}

void Shard::record_pull(const Envelope& from, Step step, const std::vector<LiveBlock*>& blocks) {
    PullRecord record;
    record.worker = WorkerId{from.from.index};
    record.incarnation = from.incarnation;
    record.step = step;
    record.epoch = setup_.epoch;
    for (const LiveBlock* block : blocks) {
        record.blocks.push_back(block->plan->id);
        record.versions.push_back(block->version);
    }
    effects_->record({now_, std::move(record)});
}

void Shard::pull(const Envelope& from, const PullRequest& body) {
    const WorkerId worker{from.from.index};
    acknowledge(worker, body.acknowledged);
    std::vector<LiveBlock*> blocks;
    std::uint64_t bytes = 0;
    for (const BlockId id : body.blocks) {
        LiveBlock* block = store_.find(id);
        if (block == nullptr) {
            refuse(from,
                   fail(ErrorCode::unknown_block, "block " + std::to_string(id.value) +
                                                      " does not live on shard " +
                                                      std::to_string(setup_.id.value)),
                   body.step, Part{}, body.request);
            return;
        }
        bytes += block->plan->bytes();
        blocks.push_back(block);
    }
    if (bytes > kMostPullBytes && blocks.size() > 1) {
        refuse(from,
               fail(ErrorCode::over_limit, "a pull of " + std::to_string(bytes) +
                                               " bytes; ask for at most " +
                                               std::to_string(kMostPullBytes) + " at a time"),
               body.step, Part{}, body.request);
        return;
    }
    if (!store_.initialised()) {
        refuse(from, fail(ErrorCode::wrong_epoch, "this shard has no weights yet"), body.step,
               Part{}, body.request);
        return;
    }
    if (held(worker)) {
        auto& asked = held_[worker].asked;  // at most two pieces of one pull are outstanding
        if (asked.size() < 4 || asked.contains(body.request)) asked[body.request] = {from, body};
        return wait(from, body.step, Part{}, body.request, WaitFor::release);
    }
    if (beyond_gate(from, body.step) || asks_early(from, body.step)) {
        auto& asked = let_wait_[worker].asked;  // as above
        if (asked.size() < 4 || asked.contains(body.request)) asked[body.request] = {from, body};
        return wait(from, body.step, Part{}, body.request, WaitFor::release);
    }
    if (body.opens) {
        auto opened = duplicates_.open(worker, body.step);
        if (!opened) {
            refuse(from, opened.error(), body.step, Part{}, body.request);
            return;
        }
        if (*opened == Duplicates::Opening::settled) {  // overtaken: nobody waits for it
            ++repeated_;
            return;
        }
        if (lead_ != nullptr && *opened == Duplicates::Opening::opened) {
            opened_[worker] = body.step;
            lead_->pulled(worker, body.step);
        }
    }
    const bool cut = body.cut && keeps_cuts();
    if (cut && awaits_cut(from, body)) return;
    ++pulls_;
    if (!cut) record_pull(from, body.step, blocks);

    // Whole blocks, message by message.
    std::vector<std::vector<LiveBlock*>> parts(1);
    std::uint64_t in_part = 0;
    for (LiveBlock* block : blocks) {
        if (in_part > 0 && in_part + block->plan->bytes() > setup_.job->message_bytes) {
            parts.emplace_back();
            in_part = 0;
        }
        parts.back().push_back(block);
        in_part += block->plan->bytes();
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
        PullReply answer;
        answer.step = body.step;
        answer.request = body.request;
        answer.part = Part{static_cast<std::uint32_t>(i)};
        answer.parts = static_cast<std::uint32_t>(parts.size());
        answer.credit_bytes = setup_.job->credit_bytes / std::max(1U, setup_.job->most_workers());
        if (cut) {
            for (const LiveBlock* block : parts[i]) {
                answer.blocks.push_back(cuts_.at(worker).weights.at(block->plan->id));
            }
        } else {
            answer.blocks = weights_of(parts[i], worker);
        }
        reply(from, std::move(answer));
    }
}

namespace {

const char* reason_text(CancelReason reason) {
    switch (reason) {
        case CancelReason::dropped:
            return "dropped";
        case CancelReason::recompute:
            return "not part of what the step pushes";  // recomputed, or of another task
        case CancelReason::stopping:
            return "stopping";
        case CancelReason::failed:
            return "failed";
        case CancelReason::in_step:
            return "pushed by another of its node";
    }
    return "unknown";
}

}  // namespace

void Shard::cancel(const Envelope& from, const CancelNote& body) {
    const WorkerId worker{from.from.index};
    acknowledge(worker, body.acknowledged);
    if (const std::uint32_t blocks = duplicates_.cancel(worker, body.step)) {
        record_closed(worker, from.incarnation, {{body.step, blocks}}, false,
                      reason_text(body.reason));
        if (decides_steps() && body.reason == CancelReason::recompute) {
            refuse_left_out({worker, from.incarnation, body.step});
        }
    }
    reply(from, CancelReply{body.step});
}

void Shard::lease(const Envelope& from, const LeaseRequest& body) {
    if (setup_.id != kLeadShard) {
        refuse(from, fail(ErrorCode::bad_message, "batches are leased by the lead shard, shard 0"),
               Step{}, Part{}, body.request);
        return;
    }
    // A late double of a worker that has said farewell must not be granted batches.
    if (duplicates_.has_left(WorkerId{from.from.index})) return;
    const WorkerId worker{from.from.index};
    const bool asks_again = leases_.waits(worker);
    leases_.request(worker, body, from.tasks);
    answer_leases();
    // So that it can tell waiting from silence. Of no step: it is about a lease.
    if (asks_again && leases_.waits(worker)) {
        wait(from, Step{}, Part{}, body.request, WaitFor::release);
    }
}

void Shard::answer_leases() {
    std::vector<Leases::Answer> answers = leases_.answers();
    for (const Leases::Change& change : leases_.changes()) {
        const auto worker = workers_.find(change.worker);
        const Incarnation incarnation = worker == workers_.end() ? Incarnation{} : worker->second;
        effects_->record(
            {now_, LeaseRecord{change.worker, incarnation, change.granted, change.range}});
    }
    for (Leases::Answer& answer : answers) {
        Envelope to;
        to.from = node_of(answer.worker);
        if (setup_.job->split_tasks) answer.reply.members = members_for_tasks();
        reply(to, std::move(answer.reply));
    }
}

const std::vector<WorkerId>& Shard::members_for_tasks() {
    if (!task_members_.empty()) return task_members_;
    for (const WorkerId worker : all_workers(setup_.job->most_workers())) {
        if (!gone_.contains(worker)) task_members_.push_back(worker);
    }
    return task_members_;
}

void Shard::note_gone(WorkerId worker, bool gone) {
    const bool changed = gone ? gone_.insert(worker).second : gone_.erase(worker) > 0;
    if (changed) task_members_.clear();
}

void Shard::farewell(const Envelope& from, const Farewell& body) {
    const WorkerId worker{from.from.index};
    acknowledge(worker, body.acknowledged);
    record_closed(worker, from.incarnation, duplicates_.farewell(worker), false, "farewell");
    note_gone(worker, true);
    leases_.release(worker);
    answer_leases();
    workers_.erase(worker);
    cuts_.erase(worker);
    let_wait_.erase(worker);
    drop_incomplete(worker, from.incarnation);
    if (lead_ != nullptr) lead_->left(worker);
    forget_if_gone(worker);
    reply(from, FarewellReply{});
}

void Shard::peer_down(const PeerDown& event) {
    if (event.node.role != Role::worker) return;
    const WorkerId worker{event.node.index};
    const auto known = workers_.find(worker);
    if (known != workers_.end() && event.incarnation < known->second) return;  // old news
    record_closed(worker, event.incarnation, duplicates_.lose(worker, event.incarnation), true,
                  event.reason);
    drop_incomplete(worker, event.incarnation);
    if (lead_ != nullptr) lead_->lost(worker, event.incarnation);
    record_control(to_string(event.node) + " lost: " + event.reason);
    note_gone(worker, true);
    leases_.release(worker);
    answer_leases();
    workers_.erase(worker);
    cuts_.erase(worker);
    let_wait_.erase(worker);
    forget_if_gone(worker);
    std::erase_if(deferred_, [&](const Message& message) {
        return message.envelope.from == event.node &&
               message.envelope.incarnation <= event.incarnation;
    });
    store_.reclaim();
    retry_deferred();
    act();
}

// In step scope the lead says at which point of the decisions' order, so that no step is in one
// shard's slice and missing from another's. Where a change of scope is on its way, it says so
// besides: some shards may wait for it.
void Shard::checkpoint(const CheckpointRequest& body) {
    asked_ = body;
    const bool alone = !decides_steps() || !store_.initialised();
    const bool made = newest_ordered_slice_ > 0 && body.number <= newest_ordered_slice_;
    if (alone && !made) {
        newest_slice_ = std::max(newest_slice_, body.number);
        make_slice(body);
    }
    const bool others = store_.initialised() && lead_ != nullptr && !lead_->all_confirmed();
    if (!alone || others) {
        if (lead_ != nullptr) lead_->checkpoint(body);
    }
}

// Around a change of scope a shard may be asked for a slice both ways: one is enough.
void Shard::slice_in_order(const CheckpointRequest& body) {
    const bool both_ways = scope_changed_ || !decides_steps();
    if (both_ways && body.number <= newest_slice_) return;
    newest_slice_ = std::max(newest_slice_, body.number);
    newest_ordered_slice_ = std::max(newest_ordered_slice_, body.number);
    make_slice(body);
}

void Shard::make_slice(const CheckpointRequest& body) {
    CheckpointReply answer;
    answer.number = body.number;
    answer.file = body.directory + "/" + slice_file_name(setup_.id);
    const auto give_up = [&](const Error& error) {
        answer.code = error.code;
        answer.error = error.text;
        Message message;
        message.body = std::move(answer);
        effects_->send(kCoordinator, std::move(message));
    };
    if (!store_.initialised()) {
        return give_up(fail(ErrorCode::bad_checkpoint, "this shard has no weights yet"));
    }
    ShardSlice slice;
    slice.shard = setup_.id;
    for (const LiveBlock& block : store_.blocks()) {
        BlockSlice one;
        one.block = block.plan->id;
        one.epoch = block.epoch;
        one.version = block.version;
        one.updates = block.updates;
        one.samples_applied = block.samples_applied;
        one.policy = block.policy->name();
        one.policy_state = block.policy_state;
        one.vectors = block.vectors.save();
        one.memory = block.memory.save();
        one.weights = block.weight_payload();
        for (int slot = 0; slot < block.rule->slots(); ++slot) {
            const std::byte* values = block.slots->data() + static_cast<std::size_t>(slot) *
                                                                block.slot_floats() * sizeof(float);
            one.slots.push_back({block.slots, {values, block.plan->bytes()}});
        }
        slice.blocks.push_back(std::move(one));
    }
    slice.extras["rules"] = rules_of(*setup_.job);
    slice.extras["duplicates"] = duplicates_.save(kept_steps());
    slice.extras["incarnation"] = std::to_string(duplicates_.newest_incarnation().value);
    if (setup_.id == kLeadShard) slice.extras["leases"] = leases_.save();
    if (lead_ != nullptr && decides_steps()) {
        slice.extras["policy"] = saved_policy(store_.step_policy()->name(), lead_->state());
    }
    auto pieces = to_pieces(slice);
    if (!pieces) return give_up(pieces.error());
    StoreOp operation;
    operation.path = answer.file;
    operation.pieces = std::move(*pieces);
    const Ticket ticket = effects_->store(std::move(operation));
    checkpoints_[ticket.value] = std::move(answer);
    record_control(checkpoint_made(body.number).what);
}

void Shard::stored(const Stored& event) {
    const auto found = checkpoints_.find(event.ticket.value);
    if (found == checkpoints_.end()) {
        if (!event.result) {  // the ledger: a run whose record is torn must not look whole
            effects_->log(LogLevel::error, event.result.error().text);
            Stopped last;
            last.failed = true;
            last.code = event.result.error().code;
            last.error = event.result.error().text;
            last.last = status();
            Message message;
            message.body = std::move(last);
            effects_->send(kCoordinator, std::move(message));
            stopped_ = true;
            effects_->finish({true, event.result.error()});
        }
        return;
    }
    CheckpointReply answer = std::move(found->second);
    checkpoints_.erase(found);
    if (!event.result) {
        answer.code = event.result.error().code;
        answer.error = event.result.error().text;
    }
    store_.reclaim();
    Message message;
    message.body = std::move(answer);
    effects_->send(kCoordinator, std::move(message));
}

}  // namespace detente
