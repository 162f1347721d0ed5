#include "worker/shard_client.h"

#include <algorithm>

#include "common/invariant.h"
#include "common/staleness/policy.h"

namespace detente {

ShardClient::ShardClient(ShardId shard, const Plan& plan, const Job& job)
    : shard_(shard),
      plan_(&plan),
      reply_deadline_(job.reply_deadline),
      message_bytes_(job.message_bytes),
      cut_(job.consistent_pulls && decides_steps(job)),
      all_(plan.by_shard[shard.value]),
      credit_bytes_(job.credit_bytes / std::max(1U, job.most_workers())) {
    std::uint64_t in_part = 0;
    for (const BlockId id : all_) {
        const Block& block = plan.block(id);
        if (!block.trainable()) continue;
        trainable_.push_back(id);
        if (layout_.empty() || in_part + block.bytes() > message_bytes_) {
            layout_.emplace_back();
            in_part = 0;
        }
        layout_.back().push_back(id);
        in_part += block.bytes();
    }
}

std::vector<ShardClient::Outstanding>::iterator ShardClient::find(Kind kind, Step step,
                                                                  std::uint32_t number) {
    return std::find_if(outstanding_.begin(), outstanding_.end(), [&](const Outstanding& one) {
        return one.kind == kind && one.step == step && one.number == number;
    });
}

Envelope ShardClient::envelope() const {
    Envelope envelope;
    envelope.to = node_of(shard_);
    envelope.shard_epoch = shard_epoch_;
    envelope.tasks = tasks_;
    envelope.deadline = reply_deadline_;
    return envelope;
}

void ShardClient::transmit(const Outstanding& outstanding, Effects& effects) {
    Message message;
    message.envelope = envelope();
    message.body = outstanding.body;
    if (outstanding.staged) std::get<Push>(message.body).blocks.clear();
    effects.send(node_of(shard_), std::move(message));
}

void ShardClient::send(Outstanding outstanding, Time now, Effects& effects) {
    outstanding.first_sent = now;
    outstanding.heard = now;
    outstanding.sent = now;
    outstanding.open_since = now;
    transmit(outstanding, effects);
    outstanding_.push_back(std::move(outstanding));
}

void ShardClient::pull(Step step, const std::vector<BlockId>& blocks, Time now, Effects& effects) {
    WantedPull chunk{step, {}, true};
    for (const BlockId id : blocks) {
        const std::uint64_t block_bytes = plan_->block(id).bytes();
        if (!chunk.blocks.empty() && chunk.bytes + block_bytes > kPullPieceBytes) {
            pulls_.push_back(std::exchange(chunk, WantedPull{step, {}, false}));
        }
        chunk.blocks.push_back(id);
        chunk.bytes += block_bytes;
    }
    if (!chunk.blocks.empty()) pulls_.push_back(std::move(chunk));
    next_pull(now, effects);
}

void ShardClient::next_pull(Time now, Effects& effects) {
    std::uint64_t asked_bytes = 0;
    for (const Outstanding& one : outstanding_) {
        if (one.kind != Kind::pull) continue;
        // The pull of another step waits for this one's end.
        if (!pulls_.empty() && pulls_.front().step != one.step) return;
        asked_bytes += one.bytes;
    }
    while (!pulls_.empty()) {
        const WantedPull& wanted = pulls_.front();
        // A block larger than that travels alone.
        if (asked_bytes > 0 && asked_bytes + wanted.bytes > kMostPullBytes) return;
        const std::uint64_t bytes = wanted.bytes;
        const Step step = wanted.step;
        PullRequest request;
        request.step = step;
        request.opens = wanted.opens;
        request.request = ++request_;
        request.acknowledged = acknowledged_;
        request.cut = cut_;
        request.blocks = std::move(pulls_.front().blocks);
        pulls_.erase(pulls_.begin());
        asked_bytes += bytes;
        send({Kind::pull, step, request_, std::move(request), bytes}, now, effects);
        if (!pulls_.empty() && pulls_.front().step != step) return;
    }
}

void ShardClient::drop_pull(Step step, Time now, Effects& effects) {
    std::erase_if(pulls_, [&](const WantedPull& wanted) { return wanted.step == step; });
    std::erase_if(outstanding_, [&](const Outstanding& one) {
        return one.kind == Kind::pull && one.step == step;
    });
    next_pull(now, effects);
}

std::optional<ShardClient::Weights> ShardClient::on(PullReply&& reply, Time now, Effects& effects) {
    const auto found = find(Kind::pull, reply.step, reply.request);
    if (found == outstanding_.end() || reply.part.value >= reply.parts) return std::nullopt;
    const std::vector<BlockId>& asked = std::get<PullRequest>(found->body).blocks;
    for (const WeightBlock& block : reply.blocks) {  // anything else is as if lost
        if (std::find(asked.begin(), asked.end(), block.block) == asked.end()) return std::nullopt;
    }
    // Whole is what has every block asked for, whatever number of parts a reply says it has: what
    // is missing is asked for again when overdue, and only that is taken from the second answer.
    std::set<BlockId>& seen = found->blocks_seen;
    std::erase_if(reply.blocks,
                  [&](const auto& block) { return !seen.insert(block.block).second; });
    if (reply.blocks.empty()) return std::nullopt;
    if (reply.credit_bytes > 0) credit_bytes_ = reply.credit_bytes;
    found->sent = now;  // the rest is on its way
    Weights weights{reply.step, std::move(reply.blocks)};
    if (seen.size() == asked.size()) {
        weights.answered = Answered{Asked::pull, found->bytes, found->open_since, found->straight};
        outstanding_.erase(found);
        next_pull(now, effects);
    }
    return weights;
}

void ShardClient::push(Push push, Time now, Effects& effects) {
    pushes_.push_back(std::move(push));
    send_within_credit(now, effects);
}

void ShardClient::send_within_credit(Time now, Effects& effects) {
    while (!initials_.empty()) {
        std::uint64_t bytes = 0;
        for (const WeightBlock& block : initials_.front().blocks) bytes += block.weights.size();
        if (in_flight_bytes_ > 0 && in_flight_bytes_ + bytes > credit_bytes_) return;
        const Part part = initials_.front().part;
        Outstanding one{Kind::initialise, {}, part.value, std::move(initials_.front()), bytes};
        initials_.erase(initials_.begin());
        in_flight_bytes_ += bytes;
        send(std::move(one), now, effects);
    }
    while (!pushes_.empty()) {
        std::uint64_t bytes = 0;
        for (const GradientBlock& block : pushes_.front().blocks) bytes += block.gradient.size();
        // One part may always travel, however small the credit, or nothing would ever move.
        if (in_flight_bytes_ > 0 && in_flight_bytes_ + bytes > credit_bytes_) return;
        Push push = std::move(pushes_.front());
        pushes_.erase(pushes_.begin());
        push.acknowledged = acknowledged_;
        const Step step = push.step;
        const Part part = push.part;
        Outstanding one{Kind::push, step, part.value, std::move(push), bytes};
        in_flight_bytes_ += bytes;
        send(std::move(one), now, effects);
    }
}

std::optional<Answered> ShardClient::on(const PushReply& reply, Time now, Effects& effects) {
    const auto found = find(Kind::push, reply.step, reply.part.value);
    if (found == outstanding_.end()) return std::nullopt;
    // An answer to something else than was asked is as if lost: sent again, then given up by name.
    const Push& asked = std::get<Push>(found->body);
    const auto same = [](const auto& a, const GradientBlock& b) { return a.block == b.block; };
    const auto answers = [&](const auto& blocks) {
        return std::equal(blocks.begin(), blocks.end(), asked.blocks.begin(), asked.blocks.end(),
                          same);
    };
    if (!answers(reply.verdicts) || reply.opened != asked.opens) return std::nullopt;
    const bool brings_blocks = asked.opens.value != 0;
    if (brings_blocks && !answers(reply.blocks)) return std::nullopt;
    in_flight_bytes_ -= found->bytes;
    const Answered answered{Asked::push, found->bytes * (brings_blocks ? 2 : 1), found->open_since,
                            found->straight};
    outstanding_.erase(found);
    send_within_credit(now, effects);
    return answered;
}

// The shard is alive and has the request: its answer takes as long as others take.
std::optional<Answered> ShardClient::on(const Wait& wait, Time now, Effects& effects) {
    const bool about_pull = wait.request != 0;
    const auto found = find(about_pull ? Kind::pull : Kind::push, wait.step,
                            about_pull ? wait.request : wait.part.value);
    if (found == outstanding_.end()) return std::nullopt;
    found->heard = now;
    found->sent = now;
    const Answered answered{about_pull ? Asked::pull : Asked::push, about_pull ? 0 : found->bytes,
                            std::exchange(found->open_since, now),
                            std::exchange(found->straight, false)};
    if (about_pull) return answered;
    if (wait.why == WaitFor::push_again) {
        found->staged = false;
        ++sent_again_;
        transmit(*found, effects);
        return answered;
    }
    found->staged = true;
    in_flight_bytes_ -= std::exchange(found->bytes, 0);
    send_within_credit(now, effects);
    return answered;
}

void ShardClient::cancel(Step step, CancelReason reason, Time now, Effects& effects) {
    Outstanding one{Kind::cancel, step, 0, CancelNote{step, reason, acknowledged_}};
    send(std::move(one), now, effects);
}

bool ShardClient::on(const CancelReply& reply) {
    const auto found = find(Kind::cancel, reply.step, 0);
    if (found == outstanding_.end()) return false;
    outstanding_.erase(found);
    return true;
}

void ShardClient::initialise(std::vector<WeightBlock> blocks, Time now, Effects& effects) {
    std::vector<Initialise> parts;
    std::uint64_t in_part = 0;
    for (WeightBlock& block : blocks) {
        if (parts.empty() || in_part + block.weights.size() > message_bytes_) {
            parts.emplace_back();
            in_part = 0;
        }
        in_part += block.weights.size();
        parts.back().blocks.push_back(std::move(block));
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
        parts[i].part = Part{static_cast<std::uint32_t>(i)};
        parts[i].parts = static_cast<std::uint32_t>(parts.size());
        initials_.push_back(std::move(parts[i]));
    }
    send_within_credit(now, effects);
}

void ShardClient::on(const InitialiseReply& reply, Time now, Effects& effects) {
    const auto found = find(Kind::initialise, {}, reply.part.value);
    if (found == outstanding_.end()) return;
    in_flight_bytes_ -= found->bytes;
    outstanding_.erase(found);
    send_within_credit(now, effects);
}

void ShardClient::farewell(Time now, Effects& effects) {
    Outstanding one{Kind::farewell, {}, 0, Farewell{acknowledged_}};
    send(std::move(one), now, effects);
}

void ShardClient::on(const FarewellReply& /*reply*/) {
    const auto found = find(Kind::farewell, {}, 0);
    if (found != outstanding_.end()) outstanding_.erase(found);
}

Result<void> ShardClient::on(const Refusal& refusal, Effects& effects) {
    if (refusal.code == ErrorCode::bad_checksum || refusal.code == ErrorCode::bad_message) {
        for (Outstanding& one : outstanding_) {
            const std::uint32_t number =
                one.kind == Kind::pull ? refusal.request : refusal.part.value;
            const bool meant =
                one.number == number && (one.kind == Kind::initialise || one.step == refusal.step);
            if (!meant) continue;
            one.refused = refusal.text;
            // Once at once; refused again, it waits until it is overdue, so that giving up counts.
            if (std::exchange(one.sent_again_at_once, true)) return {};
            ++sent_again_;
            one.straight = false;
            transmit(one, effects);
            return {};
        }
        return {};  // what it was about has been answered, or is sent again when overdue
    }
    return fail(refusal.code, "shard:" + std::to_string(shard_.value) + " refused step " +
                                  std::to_string(refusal.step.value) + ": " + refusal.text);
}

void ShardClient::settled(Step step) {
    if (step <= acknowledged_) return;
    settled_ahead_.insert(step);
    while (!settled_ahead_.empty() && *settled_ahead_.begin() == next(acknowledged_)) {
        acknowledged_ = next(acknowledged_);
        settled_ahead_.erase(settled_ahead_.begin());
    }
}

Result<void> ShardClient::send_overdue_again(Time now, Effects& effects) {
    for (Outstanding& one : outstanding_) {
        if (now - one.sent < reply_deadline_) continue;
        if (now - one.heard > kGiveUpAfter * reply_deadline_) {
            const auto waited =
                std::chrono::duration_cast<std::chrono::seconds>(now - one.heard).count();
            return fail(ErrorCode::timed_out,
                        "no " + waiting_for() + " for " + std::to_string(waited) + " s; " +
                            (one.refused.empty() ? "is that process alive and reachable?"
                                                 : "it was refused: " + one.refused));
        }
        ++sent_again_;
        one.straight = false;
        one.sent = now;
        transmit(one, effects);
    }
    return {};
}

void ShardClient::forgive(Nanos absence, Time now) {
    for (Outstanding& one : outstanding_) one.heard = std::min(now, one.heard + absence);
}

Time ShardClient::waiting_since() const {
    Time since = Time::max();
    for (const Outstanding& one : outstanding_) since = std::min(since, one.first_sent);
    return since;
}

std::string ShardClient::waiting_for() const {
    if (outstanding_.empty()) return {};
    const auto oldest =
        std::min_element(outstanding_.begin(), outstanding_.end(),
                         [](const auto& a, const auto& b) { return a.first_sent < b.first_sent; });
    const char* const names[] = {"pull reply", "push reply", "cancel reply", "initialise reply",
                                 "farewell reply"};
    return std::string(names[static_cast<std::size_t>(oldest->kind)]) +
           " of shard:" + std::to_string(shard_.value) + " (step " +
           std::to_string(oldest->step.value) + ", part " + std::to_string(oldest->number) +
           (oldest->staged ? "; staged, shard:0 decides)" : ")");
}

}  // namespace detente
