// Live changes between block scope and step scope. A step must be judged one way on all shards: a
// part applied by itself on one and staged on another would be a torn step.
//
// Block to step. The lead shard hands out no weights of steps that have not begun there yet, which
// are all that can be computed: every step needs weights of it. Its decision names each worker's
// last step before that gate. A shard makes the change when it has settled those and all before
// them; nothing else can arrive until then. The gate opens when every shard has confirmed. A worker
// for which there is no batch would keep its step open for ever: it is told to start it anew. What
// a shard handed out before, of steps beyond the gate, is older than the model's first version
// under step scope, and counted so.
//
// Workers are not told. Those that began under block scope ask for weights before their verdicts
// are in: each shard lets them wait until it has settled the step before. A worker sees by its
// first `Wait` for a verdict that steps are whole now (Worker::step_is_whole).
//
// Step to block. All shards have acted on the same decisions when they come to the change. What
// they have staged and not decided is judged as if it had just arrived, and so are its parts that
// come later; nobody waits. What was aborted before stays so: tombstones go on.
#include <algorithm>
#include <utility>

#include "common/invariant.h"
#include "common/ledger_controls.h"
#include "ps/shard.h"

namespace detente {
namespace {

// The model's version when step scope begins: more than updates that any gradient in flight can
// have missed.
constexpr std::uint64_t kFirstVersion = 1ULL << 32U;

}  // namespace

bool Shard::would_decide_steps(const Policy& policy, std::optional<Admission> asked) const {
    return detente::decides_steps(asked.value_or(admission_), policy);
}

bool Shard::changes_scope() const {
    return gate_.has_value() || (lead_ != nullptr && lead_->decides() != decides_steps());
}

// Shards a push has parts for.
std::vector<ShardId> Shard::takes_part() const {
    std::vector<ShardId> found;
    for (std::uint32_t shard = 0; shard < setup_.job->shards(); ++shard) {
        const auto& blocks = setup_.plan->by_shard[shard];
        const bool trains = std::any_of(blocks.begin(), blocks.end(), [&](BlockId id) {
            return setup_.plan->block(id).trainable();
        });
        if (trains) found.push_back(ShardId{shard});
    }
    return found;
}

// not_supported: what the job sets goes with one scope only.
Result<void> Shard::can_change_scope(const Policy& policy, std::optional<Admission> asked) const {
    const Job& job = *setup_.job;
    const bool steps = would_decide_steps(policy, asked);
    const auto refused = [&](const std::string& why) {
        const bool by_itself = steps && policy.scope() == Scope::step;
        return fail(ErrorCode::not_supported,
                    "staleness.policy = '" + policy.name() + "'" +
                        (by_itself ? std::string()
                                   : std::string(" under staleness.admission = \"") +
                                         name_of(asked.value_or(admission_)) + "\"") +
                        " decides per " + (steps ? "step" : "block") +
                        ", and this run decides per " + (decides_steps() ? "step" : "block") +
                        ": " + why);
    };
    if (!steps) {
        if (job.consistent_pulls) return refused("worker.consistent_pulls needs whole steps");
        return {};
    }
    if (!job.policy_for.empty()) return refused("[[staleness.for]] needs blocks judged alone");
    if (job.pull_ahead > 0) return refused("worker.pull_ahead must be 0 where steps are decided");
    if (!job.sync_layers.empty()) return refused("sync.layers needs blocks judged alone");
    if (job.across.method != AcrossMethod::off) {
        return refused("across.method needs blocks judged alone");
    }
    if (job.split_tasks) return refused("worker.split_tasks needs blocks judged alone");
    if (store_.trainable() == 0) {
        return refused(
            "the lead shard, shard 0, has no block that is trained, so that it cannot tell where "
            "a step begins (use fewer shards or smaller blocks.bytes)");
    }
    return {};
}

Sequence Shard::shut_gate(const PolicyChange& change) {
    Gate gate;
    std::vector<PushId> last;
    for (const auto& [worker, incarnation] : workers_) {
        const Step newest = duplicates_.newest_step(worker);
        if (newest.value == 0 || duplicates_.has_left(worker)) continue;
        last.push_back({worker, incarnation, newest});
        gate.last.emplace(worker, last.back());
    }
    const Sequence decided = lead_->change_to_steps(change, std::move(last));
    gate.number = decided.number;
    gate_ = std::move(gate);
    record_control(policy_change_decided(change, decided).what);
    restart_idle();
    return decided;
}

bool Shard::beyond_gate(const Envelope& from, Step step) const {
    if (!gate_) return false;
    const auto last = gate_->last.find(WorkerId{from.from.index});
    return last == gate_->last.end() || last->second.incarnation != from.incarnation ||
           last->second.step < step;
}

// A worker that began under block scope: its verdicts come first now.
bool Shard::asks_early(const Envelope& from, Step step) const {
    if (!decides_steps() || !scope_changed_) return false;
    const WorkerId worker{from.from.index};
    if (duplicates_.open_before({worker, from.incarnation, step})) return true;
    auto at = staged_.lower_bound(PushId{worker, from.incarnation, Step{0}});
    for (; at != staged_.end() && at->first < PushId{worker, from.incarnation, step}; ++at) {
        if (!at->second.buffered) return true;
    }
    return false;
}

bool Shard::is_due(const StageDecision& decision) const {
    if (decision.changes.empty() || decides_steps()) return true;
    // Nothing is pushed where nothing is trained: no worker need ever have spoken there.
    if (store_.trainable() == 0) return true;
    return std::all_of(decision.cuts.begin(), decision.cuts.end(),
                       [&](const PushId& last) { return duplicates_.is_over_up_to(last); });
}

void Shard::begin_steps(const PolicyConfig& config) {
    model_version_ = std::max(model_version_, kFirstVersion);
    repeat_later();
    if (lead_ == nullptr) return;
    auto policy = make_policy(config);
    invariant(policy.has_value(), "a policy that was made can be made again");
    lead_->begin_steps(std::move(*policy), takes_part(), kFirstVersion);
    // Shards that made the change before they were asked for a slice wait to be told by a decision.
    if (asked_) lead_->checkpoint(*asked_);
}

void Shard::end_steps() {
    for (auto& [id, step] : std::exchange(staged_, {})) {
        const auto known = workers_.find(id.worker);
        const bool here = known != workers_.end() && known->second == id.incarnation;
        for (StagedPart& part : step.parts) {
            if (!here) {
                lose_part(id, part);
                continue;
            }
            duplicates_.unstage(id.worker, id.step, part.push.blocks.size());
            --pushes_;  // counted when it is judged
            for (const GradientBlock& block : part.push.blocks) {
                push_bytes_ -= block.gradient.size();
            }
            Message message;
            message.envelope = part.from;
            message.body = std::move(part.push);
            deferred_.push_back(std::move(message));
        }
        forget_if_gone(id.worker);
    }
    retry_deferred();
    if (!deferred_.empty()) {
        deferred_deadline_ = effects_->after(setup_.job->reply_deadline, {kDeferredDeadline, 0});
    }
    // Asked for while it waited to be told by a decision.
    if (asked_ && newest_slice_ < asked_->number) slice_in_order(*asked_);
}

// A worker's step has no part for this shard: it repairs one that was rejected in part before steps
// were decided. No step is whole without this shard, so the others are not to wait for it.
void Shard::refuse_left_out(const PushId& id) {
    // Parts of it are here, and too few: refused already. Or another shard was faster.
    if (staged_.contains(id) || aborted_.contains(id)) return;
    StagedStep& step = staged_[id];
    step.refused = true;
    step.notice.push = id;
    step.notice.staged = false;
    step.notice.reason = ErrorCode::cancelled;
    notify_lead(step);
}

// A worker that waits for a batch keeps its step open. Started anew it lies beyond the gate.
void Shard::restart_idle() {
    if (!gate_) return;
    for (const auto& [worker, last] : gate_->last) {
        const auto known = workers_.find(worker);
        if (known == workers_.end() || known->second != last.incarnation) continue;
        if (!leases_.idle(worker) || duplicates_.is_over(last)) continue;
        Envelope to;
        to.from = node_of(worker);
        reply(to, Restart{last.step});
    }
}

bool Shard::let_go() {
    bool any = false;
    const auto due = decisions_.find(acted_ + 1);
    if (due != decisions_.end() && !due->second.changes.empty() && is_due(due->second)) {
        const std::uint64_t before = acted_;
        act();
        any = acted_ != before;
        if (any && setup_.id != kLeadShard) {
            Message message;
            message.body = StageReply{{setup_.epoch, acted_}};
            effects_->send(node_of(kLeadShard), std::move(message));
        }
    }
    if (gate_ && lead_->confirmed(gate_->number)) {
        gate_.reset();
        any = true;
    }
    // Then the policy hears of the workers first, and may hold them.
    if (any || let_wait_.empty()) return any;
    for (auto& [worker, waiting] : std::exchange(let_wait_, {})) {
        for (auto& [from, push] : waiting.pushes) {
            if (beyond_gate(from, push.opens)) {
                let_wait_[worker].pushes.emplace_back(from, std::move(push));
                continue;
            }
            any = true;
            answer(from, push);
        }
        for (auto& [number, asked] : waiting.asked) {
            const auto& [from, request] = asked;
            if (beyond_gate(from, request.step) || asks_early(from, request.step)) {
                let_wait_[worker].asked.emplace(number, std::move(asked));
                continue;
            }
            any = true;
            pull(from, request);
        }
    }
    return any;
}

std::string Shard::whom_gate_waits_for() const {
    std::string names;
    if (gate_) {
        for (const auto& [worker, last] : gate_->last) {
            if (duplicates_.is_over_up_to(last)) continue;
            names += (names.empty() ? "" : ", ") + to_string(node_of(worker));
        }
    }
    if (names.empty()) return "shards to confirm the change of policy";
    return names + " to settle what was begun before the change of policy";
}

}  // namespace detente
