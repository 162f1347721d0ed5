// What a bounded policy promises of both sides of its bound, and what workers are promised of what
// they read.
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <utility>

#include "launch/protocol_invariants.h"

namespace detente {
namespace {

std::string text_of(const std::optional<std::uint64_t>& bound) {
    return bound ? std::to_string(*bound) : "none";
}

}  // namespace

const Policy& ProtocolInvariants::policy_of(BlockId block) const {
    const Block& planned = plan_->block(block);
    const auto changed = changed_.find(node_of(planned.home));
    const bool of_job = planned.policy == 0;
    return of_job && changed != changed_.end() ? *changed->second : *policies_[planned.policy];
}

// Each shard writes it down when it acts on it, so that what it judges from then on is the new
// one's.
void ProtocolInvariants::policy_changes(NodeId shard, const ChangedPolicy& change) {
    auto policy = make_policy(change.policy);
    if (policy.has_error()) {
        return fail_with(fmt::format("{} changes to a policy that cannot be made: {}",
                                     to_string(shard), policy.error().text));
    }
    begin_anew(shard, **policy);
    const bool steps = decides_steps(change.admission.value_or(job_.admission), **policy);
    if (steps != steps_) scope_changed_ = true;
    changed_[shard] = std::move(*policy);
}

// A push is as stale as its stalest block. Under step scope all shards have acted on the same
// decisions when they act on this one, so that no block may be staler than the whole push was.
void ProtocolInvariants::within_bound(const VerdictRecord& record, const VerdictRecord::Row& row) {
    const std::uint64_t staleness = row.version.value - 1 - row.base.value;
    const auto bound = policy_of(row.block).bound();
    if (row.staleness == staleness && (!bound || staleness <= *bound)) return;
    fail_with(
        fmt::format("{}: block {} applied at staleness {}; the versions say {}, the bound is {}",
                    text_of(record), row.block.value, row.staleness, staleness, text_of(bound)));
}

void ProtocolInvariants::past_bound(const VerdictRecord& record, const VerdictRecord::Row& row) {
    const Policy& policy = policy_of(row.block);
    std::uint64_t staleness = row.staleness;
    const bool steps = of_step(record);
    if (steps) {
        const Update update{record.worker, record.incarnation, record.step};
        TooStale& push = too_stale_[update];
        push.staleness = std::max(push.staleness, row.staleness);
        if (++push.blocks < trainable_) return;  // another block may be the one that is too stale
        staleness = push.staleness;
        too_stale_.erase(update);
        // It judges by what gradients look like, too.
        if (policy.needs().measures) return;
    }
    // What decides whole steps may have no bound of its own and be as strict as bsp for a while
    // (sync_switch): then only what is not stale at all must not be refused.
    const auto bound = policy.bound();
    const std::uint64_t least = bound ? *bound : 0;
    if (staleness > least && (bound || steps)) return;
    fail_with(fmt::format("{}: block {} rejected as too stale at staleness {}, within the bound {}",
                          text_of(record), row.block.value, staleness, text_of(bound)));
}

void ProtocolInvariants::computed_at(NodeId worker, Incarnation incarnation, const Push& push) {
    if (job_.simulate.staleness.distribution != "none") return;  // as the job asks
    for (const GradientBlock& block : push.blocks) {
        // A node's average is as old as its oldest member.
        if (block.block.value >= plan_->blocks.size() || plan_->block(block.block).in_step)
            continue;
        const Read now{incarnation, push.step, block.epoch, block.base};
        const auto [at, first] = reads_.try_emplace({WorkerId{worker.index}, block.block}, now);
        Read& last = at->second;
        // Another process, another epoch, or an older push sent again.
        const bool newer =
            std::pair(now.incarnation, now.step) >= std::pair(last.incarnation, last.step);
        if (first || !newer) continue;
        if (now.epoch == last.epoch && now.version < last.version) {
            fail_with(fmt::format(
                "{} computed step {} at version {} of block {}, after it had computed step {} at "
                "version {}",
                to_string(worker), push.step.value, now.version.value, block.block.value,
                last.step.value, last.version.value));
        }
        last = now;
    }
}

}  // namespace detente
