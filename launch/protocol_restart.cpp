// What must hold across a restart: nothing of the generation before is heard, the shards hold what
// their checkpoint held under a new epoch, and what had been applied since is listed as lost.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "launch/protocol_invariants.h"

namespace detente {
namespace {

std::shared_ptr<const AlignedBuffer> copy_of(const AlignedBuffer& bytes) {
    auto copy = std::make_shared<AlignedBuffer>(bytes.size());
    if (bytes.size() > 0) std::memcpy(copy->data(), bytes.data(), bytes.size());
    return copy;
}

bool same(const AlignedBuffer& a, const AlignedBuffer& b, std::size_t from_float,
          std::size_t floats) {
    return std::memcmp(a.floats().data() + from_float, b.floats().data() + from_float,
                       floats * sizeof(float)) == 0;
}

}  // namespace

void ProtocolInvariants::handed(NodeId id, const Event& event, Generation generation) {
    const auto* received = std::get_if<Received>(&event);
    if (received == nullptr) return;
    // From here on another policy may have the lead's state, at once, and no clocks.
    if (std::holds_alternative<PolicyChange>(received->message.body)) clocks_.reset();
    const Envelope& from = received->message.envelope;
    const auto of_data = [](NodeId node) {
        return node.role == Role::shard || node.role == Role::worker;
    };
    if (!of_data(id) || !of_data(from.from) || from.generation == generation) return;
    fail_with(fmt::format("{} is handed a '{}' of {} of generation {}, in generation {}",
                          to_string(id), kind_of(received->message.body), to_string(from.from),
                          from.generation.value, generation.value));
}

void ProtocolInvariants::keep_checkpoint(NodeId shard, std::uint64_t number) {
    KeptShard& kept = kept_[number][shard];
    kept = {};
    kept.told = told_[shard];
    for (const BlockId id : plan_->by_shard[shard.index]) {
        Followed& followed = blocks_[id];
        if (!followed.known) continue;
        Kept& block = kept.blocks[id];
        block.epoch = followed.epoch;
        block.version = followed.version;
        fold(id, followed);
        block.updates = followed.updates;
        block.weights = copy_of(*followed.weights);
        block.slots = copy_of(*followed.slots);
        block.memory = followed.memory.save();
        block.policy = policy_of(id).name();
        block.policy_state = followed.policy_state;
        block.vectors = followed.vectors.save();
    }
}

void ProtocolInvariants::resumed(std::optional<std::uint64_t> checkpoint) {
    const auto found = checkpoint ? kept_.find(*checkpoint) : kept_.end();
    from_elsewhere_ = found == kept_.end();
    told_.clear();
    restored_.clear();
    still_to_list_.clear();
    not_started_.clear();
    for (std::uint32_t i = 0; i < plan_->by_shard.size(); ++i) {
        not_started_.insert(node_of(ShardId{i}));
    }
    if (!from_elsewhere_) {
        for (const auto& [shard, kept] : found->second) {
            told_[shard] = kept.told;
            restored_.insert(kept.blocks.begin(), kept.blocks.end());
        }
        for (const auto& [update, at] : applied_) {
            const auto block = restored_.find(std::get<BlockId>(update));
            if (block == restored_.end()) continue;
            if (at > std::pair(block->second.epoch, block->second.version)) {
                still_to_list_.emplace(update, at);
            }
        }
    }
    for (const auto& [block, followed] : blocks_) {
        if (followed.known) newest_epoch_ = std::max(newest_epoch_, followed.epoch);
    }
    // Numbers of checkpoints go on from the one restored.
    if (checkpoint) kept_.erase(kept_.upper_bound(*checkpoint), kept_.end());
    blocks_.clear();
    gradients_.clear();
    acknowledgeable_.clear();
    order_.clear();
    position_.clear();
    last_on_.clear();
    decided_.clear();
    too_stale_.clear();
    changed_.clear();  // a job that is begun again has its own policy
    scope_changed_ = false;
    scopes_.restarted();
    if (clocks_ != nullptr) {
        clocks_->restarted();
    } else {
        clocks_ = ClockInvariants::create(job_);
    }
}

void ProtocolInvariants::listed_as_lost(const LostRecord& record) {
    if (from_elsewhere_) return;
    const std::string name = text_of(record.worker, record.incarnation, record.step);
    if (record.reason.empty()) fail_with(name + " is listed as lost without a reason");
    for (std::size_t i = 0; i < record.blocks.size(); ++i) {
        const auto found =
            still_to_list_.find({record.worker, record.incarnation, record.step, record.blocks[i]});
        if (found == still_to_list_.end() ||
            found->second != std::pair(record.epoch, record.versions[i])) {
            return fail_with(fmt::format(
                "{}: block {} is listed as lost at version {}, where it was not applied after the "
                "checkpoint, or twice",
                name, record.blocks[i].value, record.versions[i].value));
        }
        still_to_list_.erase(found);
    }
}

void ProtocolInvariants::all_listed(NodeId shard) {
    for (const auto& [update, at] : still_to_list_) {
        const auto& [worker, incarnation, step, block] = update;
        if (plan_->block(block).home != ShardId{shard.index}) continue;
        return fail_with(fmt::format(
            "{}: block {} was applied to version {} after the checkpoint, and is not listed as "
            "lost",
            text_of(worker, incarnation, step), block.value, at.second.value));
    }
}

void ProtocolInvariants::restored(const LiveBlock& block) {
    const auto found = restored_.find(block.plan->id);
    if (found == restored_.end()) return;
    const Kept kept = found->second;
    restored_.erase(found);
    const std::string name = fmt::format("block {} is restored ", block.plan->id.value);
    if (block.epoch <= newest_epoch_) {
        fail_with(name + fmt::format("under epoch {}, and was in epoch {} before",
                                     block.epoch.value, newest_epoch_.value));
    }
    if (block.version != kept.version) {
        fail_with(name + fmt::format("at version {}, its checkpoint has {}", block.version.value,
                                     kept.version.value));
    }
    if (block.updates != kept.updates ||
        !same(*block.weights, *kept.weights, 0, block.plan->elements)) {
        fail_with(name +
                  "with other weights, or another count of updates, than its checkpoint has");
    }
    if (block.memory.save() != kept.memory) {
        fail_with(name + "with other averages of tasks' gradients than its checkpoint has");
    }
    if (!same_policy_vectors(block, kept)) {
        fail_with(name + "with other vectors of its staleness policy than its checkpoint has");
    }
    for (int slot = 0; slot < block.rule->slots(); ++slot) {
        const std::size_t from = static_cast<std::size_t>(slot) * block.slot_floats();
        if (!same(*block.slots, *kept.slots, from, block.plan->elements)) {
            fail_with(name + "with other optimizer state than its checkpoint has");
        }
    }
}

// A policy that was set while the run went on is not the job's that is begun again: that one begins
// anew, as does one of the same name that keeps other vectors. Of policies that correct nothing,
// neither vectors nor state are followed.
bool ProtocolInvariants::same_policy_vectors(const LiveBlock& block, const Kept& kept) const {
    const Policy& policy = policy_of(block.plan->id);
    const PolicyNeeds needs = policy.needs();
    const bool fits =
        kept.policy == policy.name() && kept.vectors.block.size() == needs.block_vectors &&
        std::all_of(kept.vectors.workers.begin(), kept.vectors.workers.end(),
                    [&](const auto& one) { return one.second.size() == needs.worker_vectors; });
    if (!needs.corrects || !fits) return true;
    PolicyVectors expected;
    expected.restore(kept.vectors);
    for (const auto& [worker, vectors] : kept.vectors.workers) {
        if (worker.value < job_.workers) continue;  // it had joined, and is not there again
        expected.forget(policy, worker, block.version,
                        block.weights->floats().first(block.plan->elements));
    }
    const SavedVectors one = expected.save();
    const SavedVectors other = block.vectors.save();
    const auto same_bytes = [](const Payload& a, const Payload& b) {
        return std::ranges::equal(a.bytes, b.bytes);
    };
    const auto same_worker = [&](const auto& a, const auto& b) {
        return a.first == b.first && std::ranges::equal(a.second, b.second, same_bytes);
    };
    return block.policy_state == kept.policy_state &&
           std::ranges::equal(one.block, other.block, same_bytes) &&
           std::ranges::equal(one.workers, other.workers, same_worker);
}

}  // namespace detente
