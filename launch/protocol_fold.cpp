// What the updates in the records make of the first weights: a shard's arithmetic once more, from
// the gradients as they were sent. It shares rules, policies and what holds their vectors with the
// shard (common/, ps/policy_vectors.h, ps/task_memory.h), each with tests of its own, and none of
// what calls them: which gradient, corrected by which copy, in which order, at which rate.
//
// Policies that correct a gradient see their own state and vectors, and some the weights its worker
// was handed. The records say who was handed which version, so copies are kept here as a shard
// keeps them, and go when it says that a worker is forgotten. No policy is left out.
#include <fmt/core.h>

#include <bit>
#include <cstring>
#include <utility>

#include "common/invariant.h"
#include "launch/protocol_invariants.h"

namespace detente {

// Requires: what was kept of an earlier update is folded.
void ProtocolInvariants::keep(const BlockUpdate& update, const VerdictRecord& record,
                              const VerdictRecord::Row& row, Followed& followed) {
    const auto gradient = gradients_.find(update);
    if (gradient == gradients_.end()) {
        return fail_with(fmt::format("block {}: version {} comes of a gradient that nobody sent",
                                     row.block.value, row.version.value));
    }
    Part part;
    part.weight = record.gradient_weight;
    part.gradient = std::move(gradient->second);
    part.base = row.base;
    part.tasks = row.tasks;
    part.arrived.worker = record.worker;
    part.arrived.step = record.step;
    part.arrived.staleness = row.staleness;
    part.arrived.updates = followed.updates;
    part.arrived.samples_applied = followed.samples_applied;
    part.arrived.members = job_.workers;
    part.arrived.learning_rate = row.scheduled_rate;
    if (!of_step(record)) {  // it was judged then and there
        part.arrived.at_s = as_seconds(record.arrived);
    }
    followed.parts.push_back(std::move(part));
    followed.denominator = record.denominator;
    followed.learning_rate = row.learning_rate();
    followed.samples += record.samples;
    gradients_.erase(gradient);
    ++folded_;
}

// Applies what was kept.
void ProtocolInvariants::fold(BlockId block, Followed& followed) {
    if (followed.parts.empty()) return;
    const Block& planned = plan_->block(block);
    const Policy& policy = policy_of(block);
    const PolicyNeeds needs = policy.needs();
    const std::vector<Part> parts = std::exchange(followed.parts, {});
    const bool one = parts.size() == 1 && parts[0].weight == 1 && followed.denominator == 1;
    const std::byte* gradient = parts[0].gradient.bytes.data();
    if (one && remembers_tasks(job_, planned)) {
        gradient = resolved(planned, followed, parts[0]);
    } else if (!one || needs.corrects) {
        gradient = corrected(planned, followed, parts);
    }
    const std::span<float> weights = followed.weights->floats().first(planned.elements);
    if (needs.step_averages) before_.assign(weights.begin(), weights.end());
    const Rule& rule = *rules_[planned.rule];
    const std::size_t stride = (planned.elements + 15) / 16 * 16;
    RuleArrays arrays;
    arrays.weights_in = weights;
    arrays.weights_out = weights;
    arrays.gradient = gradient;
    if (rule.slots() > 0) arrays.slot0 = followed.slots->floats().subspan(0, planned.elements);
    if (rule.slots() > 1) arrays.slot1 = followed.slots->floats().subspan(stride, planned.elements);
    RuleStep step;
    step.learning_rate = followed.learning_rate;
    step.update = ++followed.updates;
    step.clip_value = clip_values_[planned.rule];
    rule.apply(step, arrays);
    followed.samples_applied += std::exchange(followed.samples, 0U);
    if (!needs.step_averages) return;
    policy.applied(followed.learning_rate, before_,
                   followed.vectors.of(needs, parts[0].arrived.worker, parts[0].base, weights));
}

const std::byte* ProtocolInvariants::resolved(const Block& planned, Followed& followed,
                                              const Part& part) {
    scratch_.resize(planned.elements);
    std::memcpy(scratch_.data(), part.gradient.bytes.data(), planned.bytes());
    TaskMemory::Arrival arrival;
    arrival.task = TaskId{static_cast<std::uint32_t>(std::countr_zero(part.tasks.bits))};
    arrival.base = part.base;
    arrival.weights = followed.weights->floats().first(planned.elements);
    arrival.stale = followed.memory.copies().copy_of(part.arrived.worker, part.base);
    AcrossFigures figures;
    followed.memory.resolve(job_.across, arrival, scratch_, beside_, figures);
    return reinterpret_cast<const std::byte*>(scratch_.data());
}

// Σ weight·g / denominator, in double and in the order of the records, as the shard does. A policy
// that corrects learns of each arrival before it does: alone on its shard when the shard judged it,
// and where the lead did, when the update is made. That is the same place in the block's order.
const std::byte* ProtocolInvariants::corrected(const Block& planned, Followed& followed,
                                               const std::vector<Part>& parts) {
    const Policy& policy = policy_of(planned.id);
    const PolicyNeeds needs = policy.needs();
    const std::span<const float> weights = followed.weights->floats().first(planned.elements);
    const bool one = parts.size() == 1 && parts[0].weight == 1 && followed.denominator == 1;
    scratch_.resize(planned.elements);
    sum_.assign(planned.elements, 0.0);
    for (const Part& part : parts) {
        const WorkerId worker = part.arrived.worker;
        std::memcpy(scratch_.data(), part.gradient.bytes.data(), planned.bytes());
        // Staged before a change to a policy that keeps copies: there is none of its weights.
        const bool can_correct =
            !needs.stale_weights || !followed.vectors.copy_of(worker, part.base).empty();
        if (needs.corrects && can_correct) {
            std::vector<PolicyOutcome> known;
            policy.on(part.arrived, followed.policy_state, known);
            policy.correct(part.arrived, followed.policy_state,
                           followed.vectors.of(needs, worker, part.base, weights), scratch_);
        }
        if (one) break;
        for (std::size_t i = 0; i < sum_.size(); ++i) {
            sum_[i] += static_cast<double>(part.weight) * scratch_[i];
        }
    }
    for (std::size_t i = 0; !one && i < sum_.size(); ++i) {
        scratch_[i] = static_cast<float>(sum_[i] / followed.denominator);
    }
    return reinterpret_cast<const std::byte*>(scratch_.data());
}

// A worker is given the newest weights; who corrects what it will push must know them then.
void ProtocolInvariants::hand_out(BlockId block, WorkerId worker, Followed& followed) {
    const Block& planned = plan_->block(block);
    if (planned.frozen) return;
    const PolicyNeeds needs = policy_of(block).needs();
    const bool compensates = job_.across.compensate > 0 && remembers_tasks(job_, planned);
    if (!compensates && !needs.stale_weights && !needs.look_ahead) return;
    invariant(!needs.stale_weights || !needs.look_ahead,
              "no policy corrects by the weights it looked ahead to");
    fold(block, followed);
    const std::span<const float> weights = followed.weights->floats().first(planned.elements);
    if (compensates) followed.memory.copies().keep_copy(worker, followed.version, weights);
    if (needs.stale_weights) followed.vectors.keep_copy(worker, followed.version, weights);
    // What it has of its own begins with its first weights.
    if (needs.look_ahead) (void)followed.vectors.of(needs, worker, followed.version, weights);
}

void ProtocolInvariants::forgotten(NodeId shard, WorkerId worker) {
    for (const BlockId id : plan_->by_shard[shard.index]) {
        Followed& followed = blocks_[id];
        if (!followed.known) continue;
        fold(id, followed);
        followed.memory.copies().forget(worker);
        followed.vectors.forget(policy_of(id), worker, followed.version,
                                followed.weights->floats().first(plan_->block(id).elements));
    }
}

// Requires: before policy_of() is the new one.
void ProtocolInvariants::begin_anew(NodeId shard, const Policy& policy) {
    for (const BlockId id : plan_->by_shard[shard.index]) {
        Followed& followed = blocks_[id];
        if (!followed.known || plan_->block(id).policy != 0) continue;
        fold(id, followed);
        followed.policy_state = policy.initial_state();
        followed.vectors = {};
    }
}

}  // namespace detente
