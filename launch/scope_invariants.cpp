#include "launch/scope_invariants.h"

#include <fmt/core.h>

#include "common/staleness/policy.h"

namespace detente {

ScopeInvariants::ScopeInvariants(const Job& job, std::size_t shards)
    : job_(job), shards_(shards), steps_(decides_steps(job)) {}

void ScopeInvariants::decided(const StageDecision& decision) {
    if (decision.sequence.number <= newest_) return;
    newest_ = decision.sequence.number;
    for (const PolicyChange& change : decision.changes) {
        ++changes_;
        const auto policy = make_policy({change.policy, change.parameters});
        if (policy.has_error()) continue;  // the shards will say so
        const bool before = steps_;
        steps_ = decides_steps(change.admission.value_or(job_.admission), **policy);
        if (before || !steps_) continue;
        gate_ = Gate{changes_, {}};
        for (const PushId& last : decision.cuts) gate_->last.emplace(last.worker, last);
    }
}

void ScopeInvariants::changed(NodeId shard) { ++made_[shard]; }

bool ScopeInvariants::is_open(const Gate& gate) const {
    std::size_t ready = 0;
    for (const auto& [shard, made] : made_) ready += made >= gate.change ? 1 : 0;
    return ready == shards_;
}

std::optional<std::string> ScopeInvariants::judged(NodeId shard, const VerdictRecord& record) {
    // What is lost with its worker was judged by nobody.
    if (record.rows.front().verdict == Verdict::lost) return std::nullopt;
    const bool by_lead = record.decision != Sequence{};
    const auto [known, first] =
        ways_.try_emplace({record.worker, record.incarnation, record.step}, Way{shard, by_lead});
    const Way& way = known->second;
    if (way.by_lead == by_lead) return std::nullopt;
    return fmt::format(
        "worker:{} incarnation {} step {} is torn between two scopes: {} judges it {}, {} did so "
        "{}",
        record.worker.value, record.incarnation.value, record.step.value, to_string(shard),
        by_lead ? "as the lead shard decided" : "alone", to_string(way.shard),
        way.by_lead ? "as the lead shard decided" : "alone");
}

std::optional<std::string> ScopeInvariants::handed_out(NodeId shard, const PullRecord& record) {
    if (!gate_ || shard != node_of(kLeadShard)) return std::nullopt;
    if (is_open(*gate_)) {
        gate_.reset();
        return std::nullopt;
    }
    const auto last = gate_->last.find(record.worker);
    const bool begun = last != gate_->last.end() &&
                       last->second.incarnation == record.incarnation &&
                       record.step <= last->second.step;
    if (begun) return std::nullopt;
    return fmt::format(
        "{} hands out weights of worker:{} incarnation {} step {}, which had not begun there, "
        "before every shard has changed to step scope",
        to_string(shard), record.worker.value, record.incarnation.value, record.step.value);
}

void ScopeInvariants::restarted() {
    steps_ = decides_steps(job_);
    newest_ = 0;
    changes_ = 0;
    made_.clear();
    gate_.reset();
    ways_.clear();
}

}  // namespace detente
