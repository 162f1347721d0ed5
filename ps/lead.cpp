#include "ps/lead.h"

#include <algorithm>

#include "common/invariant.h"

namespace detente {
namespace {

// A worker has at most this many steps unsettled (Duplicates::kMostOpenSteps), so notices about
// older ones are late doubles.
constexpr std::size_t kStepsRemembered = 64;

}  // namespace

Lead::Lead(std::unique_ptr<const Policy> policy, std::vector<ShardId> shards,
           std::uint32_t all_shards, std::uint32_t workers, Epoch epoch,
           const std::optional<PolicyState>& saved)
    : policy_(std::move(policy)), shards_(std::move(shards)), epoch_(epoch) {
    if (policy_ != nullptr) {
        PolicyState before = saved.value_or(PolicyState{});
        // Of a job that had more workers: nobody may wait for those.
        std::erase_if(before.workers, [&](const auto& one) { return one.first.value >= workers; });
        state_ = saved ? policy_->resumed(before) : policy_->initial_state();
    }
    for (std::uint32_t shard = 0; shard < all_shards; ++shard) confirmed_[ShardId{shard}] = 0;
    for (std::uint32_t worker = 0; worker < workers; ++worker) joined(WorkerId{worker});
}

bool Lead::decided(const PushId& push) const {
    const auto found = decided_.find(push.worker);
    if (found == decided_.end() || push.incarnation != found->second.incarnation) return false;
    const std::set<Step>& steps = found->second.steps;
    return steps.contains(push.step) ||
           (steps.size() >= kStepsRemembered && push.step < *steps.begin());
}

bool Lead::dead(const PushId& push) const {
    const auto found = decided_.find(push.worker);
    if (found == decided_.end()) return false;
    return push.incarnation < found->second.incarnation ||
           (push.incarnation == found->second.incarnation && found->second.gone);
}

void Lead::note_decided(const PushId& push) {
    Decided& known = decided_[push.worker];
    if (push.incarnation < known.incarnation) return;
    if (known.incarnation < push.incarnation) known = Decided{push.incarnation, false, {}};
    known.steps.insert(push.step);
    if (known.steps.size() > kStepsRemembered) known.steps.erase(known.steps.begin());
}

PushId Lead::push_of(Subject subject) const {
    const auto found = subjects_.find(subject);
    invariant(found != subjects_.end(), "a policy settles only what arrived, and that once");
    return found->second;
}

void Lead::noticed(ShardId shard, const StageNotice& notice, const Standing& standing) {
    // Block scope has begun: the shards judge what they staged when they hear of it.
    if (policy_ == nullptr || decided(notice.push)) return;
    const auto alone = alone_.find(notice.push.worker);
    if (alone != alone_.end() && notice.push <= alone->second) return;  // likewise, and late
    const bool first = !pending_.contains(notice.push);
    Pending& pending = pending_[notice.push];
    if (first && dead(notice.push)) {  // staged before that shard heard of the loss
        StageDecision decision;
        abort(notice.push, Advice::none, ErrorCode::peer_lost, decision);
        decide(std::move(decision));
        return;
    }
    if (pending.subject != 0) return;  // complete already: a late double
    if (!pending.shards.insert(shard).second) return;
    pending.version =
        pending.shards.size() == 1 ? notice.version : std::min(pending.version, notice.version);
    if (!notice.staged && !pending.refused) {
        pending.refused = true;
        pending.reason = notice.reason;
    }
    if (pending.refused) {  // one refusal aborts: nobody waits for the others
        StageDecision decision;
        abort(notice.push, pending.reason == ErrorCode::not_finite ? Advice::drop : Advice::refresh,
              pending.reason, decision);
        if (!members_.contains(notice.push.worker)) return decide(std::move(decision));
        return hand(Aborted{notice.push.worker, notice.push.step}, std::move(decision));
    }
    for (const BlockSums& one : notice.sums) {
        pending.measured[one.block] = {one.gradient_sq, one.weights_sq};
    }
    if (pending.shards.size() < shards_.size()) return;
    pending.subject = ++last_subject_;
    subjects_[pending.subject] = notice.push;
    Arrived arrived;
    arrived.subject = pending.subject;
    arrived.worker = notice.push.worker;
    arrived.step = notice.push.step;
    arrived.staleness = version_ - std::min(version_, pending.version);
    arrived.updates = standing.updates;
    arrived.samples_applied = standing.samples_applied;
    arrived.members = static_cast<std::uint32_t>(std::max<std::size_t>(1, members_.size()));
    arrived.learning_rate = standing.learning_rate;
    arrived.progress = standing.progress;
    arrived.at_s = standing.at_s;
    for (const auto& [block, one] : pending.measured) {
        arrived.measured.gradient_sq += one.gradient_sq;
        arrived.measured.weights_sq += one.weights_sq;
    }
    hand(arrived);
}

// A worker that is no member will not push, whatever it pulls: a policy must not wait for it.
void Lead::pulled(WorkerId worker, Step step) {
    if (members_.contains(worker)) hand(Pulled{worker, step, version_});
}

void Lead::joined(WorkerId worker) {
    if (policy_ == nullptr) return;
    if (members_.insert(worker).second) hand(Joined{worker});
}

void Lead::left(WorkerId worker) {
    if (members_.erase(worker) > 0) hand(Left{worker});
}

void Lead::lost(WorkerId worker, Incarnation incarnation) {
    StageDecision decision;
    std::vector<PushId> torn;
    for (const auto& [push, pending] : pending_) {
        if (push.worker != worker || incarnation < push.incarnation || pending.subject != 0) {
            continue;
        }
        torn.push_back(push);
    }
    for (const PushId& push : torn) abort(push, Advice::none, ErrorCode::peer_lost, decision);
    Decided& known = decided_[worker];
    if (known.incarnation < incarnation) known = Decided{incarnation, true, {}};
    if (known.incarnation == incarnation) known.gone = true;
    if (!torn.empty()) decide(std::move(decision));
    left(worker);
    held_.erase(worker);  // shards have dropped it
}

// Everything one event led to is one decision, so that a shard holds a worker before it answers it.
void Lead::hand(const PolicyEvent& event, StageDecision decision) {
    ask(event, decision);
    decide(std::move(decision));
}

void Lead::ask(const PolicyEvent& event, StageDecision& decision) {
    invariant(policy_ != nullptr, "in block scope nobody is a member, and nothing is staged");
    std::vector<PolicyOutcome> outcomes;
    policy_->on(event, state_, outcomes);
    for (const PolicyOutcome& outcome : outcomes) {
        if (const auto* apply = std::get_if<ApplyThese>(&outcome)) {
            commit(*apply, decision);
        } else if (const auto* reject = std::get_if<RejectThis>(&outcome)) {
            abort(push_of(reject->subject), reject->advice, reject->reason, decision);
        } else if (const auto* buffer = std::get_if<BufferThis>(&outcome)) {
            if (!buffer->worker_waits) decision.buffered.push_back(push_of(buffer->subject));
        } else if (const auto* hold = std::get_if<HoldPull>(&outcome)) {
            // Let go and held by one decision it stays as it is, and so below.
            if (!held_.insert(hold->worker).second) continue;
            if (std::erase(decision.release, hold->worker) == 0) {
                decision.hold.push_back(hold->worker);
            }
        } else if (const auto* release = std::get_if<ReleasePull>(&outcome)) {
            held_.erase(release->worker);
            if (std::erase(decision.hold, release->worker) == 0) {
                decision.release.push_back(release->worker);
            }
        } else if (const auto* cancel = std::get_if<CancelWorker>(&outcome)) {
            restarts_.push_back(cancel->worker);
        }
    }
}

void Lead::commit(const ApplyThese& apply, StageDecision& decision) {
    StepCommit commit;
    for (const Contribution& contribution : apply.pushes) {
        const PushId push = push_of(contribution.subject);
        const auto pending = pending_.find(push);
        invariant(pending != pending_.end(), "a push is committed once");
        const std::uint64_t staleness = version_ - std::min(version_, pending->second.version);
        invariant(!policy_->bound() || staleness <= *policy_->bound(),
                  "a bounded policy accepts nothing past its bound");
        commit.pushes.push_back({push, contribution.gradient_weight});
        note_decided(push);
        subjects_.erase(contribution.subject);
        pending_.erase(pending);
    }
    commit.denominator = apply.denominator;
    commit.step_scale = apply.step_scale;
    commit.version = ++version_;
    decision.commits.push_back(std::move(commit));
}

void Lead::abort(const PushId& push, Advice advice, ErrorCode reason, StageDecision& decision) {
    const auto pending = pending_.find(push);
    invariant(pending != pending_.end(), "a push is aborted once");
    decision.aborts.push_back({push, advice, reason});
    note_decided(push);
    subjects_.erase(pending->second.subject);
    pending_.erase(pending);
}

void Lead::cut(const PushId& step) {
    if (dead(step)) return;
    const auto [last, fresh] = cuts_.try_emplace(step.worker, step);
    if (!fresh && !(last->second < step)) return;
    last->second = step;
    StageDecision decision;
    decision.cuts.push_back(step);
    decide(std::move(decision));
}

void Lead::checkpoint(const CheckpointRequest& request) {
    StageDecision decision;
    decision.checkpoints.push_back(request);
    decide(std::move(decision));
}

// One decision: a worker that both policies hold is not handed weights in between, which the new
// one would not know of.
Sequence Lead::change(const PolicyChange& change, std::unique_ptr<const Policy> policy) {
    StageDecision decision;
    for (const WorkerId worker : members_) ask(Left{worker}, decision);
    for (const PolicyState::Kept& kept : state_.kept) {
        abort(push_of(kept.subject), Advice::refresh, ErrorCode::cancelled, decision);
    }
    decision.changes.push_back(change);
    policy_ = std::move(policy);
    state_ = policy_ != nullptr ? policy_->initial_state() : PolicyState{};
    if (policy_ == nullptr) {
        decision.release.insert(decision.release.end(), held_.begin(), held_.end());
        held_.clear();
        members_.clear();
        pending_.clear();
        subjects_.clear();
        restarts_.clear();
    }
    for (const WorkerId worker : members_) ask(Joined{worker}, decision);
    decide(std::move(decision));
    return {epoch_, number_};
}

Sequence Lead::change_to_steps(const PolicyChange& change, std::vector<PushId> last) {
    invariant(policy_ == nullptr, "a run goes over to step scope from block scope");
    alone_.clear();
    for (const PushId& one : last) alone_[one.worker] = one;
    StageDecision decision;
    decision.changes.push_back(change);
    decision.cuts = std::move(last);
    decide(std::move(decision));
    return {epoch_, number_};
}

void Lead::begin_steps(std::unique_ptr<const Policy> policy, std::vector<ShardId> shards,
                       std::uint64_t version) {
    policy_ = std::move(policy);
    shards_ = std::move(shards);
    state_ = policy_->initial_state();
    version_ = std::max(version_, version);
}

void Lead::decide(StageDecision&& decision) {
    const bool nothing = decision.commits.empty() && decision.aborts.empty() &&
                         decision.buffered.empty() && decision.hold.empty() &&
                         decision.release.empty() && decision.changes.empty() &&
                         decision.checkpoints.empty() && decision.cuts.empty();
    if (nothing) return;
    decision.sequence = {epoch_, ++number_};
    fresh_.push_back(decision);
    log_.push_back(std::move(decision));
}

void Lead::applied(ShardId shard, Sequence sequence) {
    const auto found = confirmed_.find(shard);
    if (found == confirmed_.end() || sequence.lead_epoch != epoch_) return;
    found->second = std::max(found->second, std::min(sequence.number, number_));
    std::uint64_t least = number_;
    for (const auto& [id, number] : confirmed_) least = std::min(least, number);
    while (!log_.empty() && log_.front().sequence.number <= least) log_.pop_front();
}

std::vector<StageDecision> Lead::decisions() { return std::exchange(fresh_, {}); }
std::vector<WorkerId> Lead::restarts() { return std::exchange(restarts_, {}); }

std::vector<StageDecision> Lead::unconfirmed(ShardId shard, std::size_t most) const {
    std::vector<StageDecision> missing;
    const auto found = confirmed_.find(shard);
    if (found == confirmed_.end()) return missing;
    for (const StageDecision& decision : log_) {
        if (missing.size() >= most) break;
        if (decision.sequence.number > found->second) missing.push_back(decision);
    }
    return missing;
}

bool Lead::pushes_confirmed() const {
    return pending_.empty() && std::all_of(log_.begin(), log_.end(), [](const auto& decision) {
               return decision.commits.empty() && decision.aborts.empty();
           });
}

std::vector<ShardId> Lead::awaited() const {
    std::vector<ShardId> missing;
    for (const auto& [push, pending] : pending_) {
        if (pending.subject != 0) continue;
        for (const ShardId shard : shards_) {
            if (!pending.shards.contains(shard)) missing.push_back(shard);
        }
        break;
    }
    return missing;
}

}  // namespace detente
