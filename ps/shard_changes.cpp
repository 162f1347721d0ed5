// Live changes of a shard's staleness policy: the lead checks and numbers them, all shards act on
// them in the order of the numbers. Under step scope that is a boundary between two steps; under
// block scope each shard changes when the news arrives. From one scope to the other:
// shard_scopes.cpp.
#include "common/invariant.h"
#include "common/ledger_controls.h"
#include "ps/shard.h"

namespace detente {

// bad_job, not_supported: why this run cannot change to it, and what to do instead.
Result<std::unique_ptr<const Policy>> Shard::checked(const PolicyChange& body) const {
    auto policy = make_policy({body.policy, body.parameters});
    if (!policy) return policy;
    if (body.admission) {
        if (auto fits = check_asked(*body.admission, **policy); !fits) return fits.error();
    }
    const auto instead = "; end the run by Ctrl-C and go on with --resume under the other policy";
    if (changes_scope()) {
        return fail(ErrorCode::not_supported,
                    "the change of policy before is still being made: " + whom_gate_waits_for() +
                        "; ask again when it has been");
    }
    if (would_decide_steps(**policy, body.admission) != decides_steps()) {
        if (auto possible = can_change_scope(**policy, body.admission); !possible) {
            return fail(ErrorCode::not_supported, possible.error().text + instead);
        }
    }
    if (setup_.job->across.method != AcrossMethod::off && !fits_across(**policy)) {
        return fail(ErrorCode::not_supported,
                    "staleness.policy = '" + body.policy +
                        "' changes or keeps something of a gradient, which does not go with "
                        "across.method" +
                        instead);
    }
    for (const Policy* half : {policy->get(), &store_.job_policy()}) {
        if (half->worker_half() == nullptr) continue;
        return fail(ErrorCode::not_supported,
                    "staleness.policy = '" + half->name() +
                        "' runs in the workers too, which cannot change it" + instead);
    }
    return policy;
}

void Shard::change_policy(const PolicyChange& body) {
    PolicyChanged answer;
    answer.request = body.request;
    auto policy = checked(body);
    if (lead_ == nullptr) {
        policy = fail(ErrorCode::bad_message, "changes of policy are for the lead shard, shard 0");
    }
    if (policy) {
        const bool steps = would_decide_steps(**policy, body.admission);
        if (!steps) policy->reset();
        // One before may not be made yet, here or elsewhere: "as it is" would then be another's.
        PolicyChange whole = body;
        admission_ = body.admission.value_or(admission_);
        whole.admission = admission_;
        answer.later = steps && !decides_steps();
        answer.sequence =
            answer.later ? shut_gate(whole) : lead_->change(whole, std::move(*policy));
    } else {
        answer.code = policy.error().code;
        answer.error = policy.error().text;
        effects_->log(LogLevel::warning,
                      "refused a change of policy asked for by " + body.by + ": " + answer.error);
    }
    Message message;
    message.body = std::move(answer);
    effects_->send(kCoordinator, std::move(message));
}

void Shard::adopt(const PolicyChange& change, Sequence sequence) {
    const std::string former = store_.job_policy().name();
    const PolicyConfig policy{change.policy, change.parameters};
    const bool steps = decides_steps();
    const auto changed = store_.change_policy(policy, change.admission);
    // The lead has checked it, and shards are of one build.
    invariant(changed.has_value(), "a change of policy that was decided can be made");
    record_control(policy_changed(change, former, sequence).what);
    effects_->log(LogLevel::information, "staleness policy " + text_of(policy) + " in place of '" +
                                             former + "', by " + change.by);
    if (steps == decides_steps()) return;
    scope_changed_ = true;
    if (steps) {
        end_steps();
    } else {
        begin_steps(policy);
    }
}

}  // namespace detente
