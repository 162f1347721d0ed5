#include "launch/scope_invariants.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

const NodeId kLead = node_of(ShardId{0});
const NodeId kOther = node_of(ShardId{1});

Job job_under(const std::string& policy) {
    Job job;
    job.policy = {policy, {}};
    return job;
}

StageDecision change_to(const std::string& policy, std::uint64_t number,
                        std::vector<PushId> last = {}) {
    StageDecision decision;
    decision.sequence = {Epoch{1}, number};
    decision.changes.push_back({1, policy, {}, "a test"});
    decision.cuts = std::move(last);
    return decision;
}

PushId step_of(std::uint32_t worker, std::uint64_t step) {
    return {WorkerId{worker}, Incarnation{1}, Step{step}};
}

bool may_begin(ScopeInvariants& scopes, std::uint32_t worker, std::uint64_t step,
               std::uint32_t incarnation = 1, NodeId shard = kLead) {
    PullRecord record;
    record.worker = WorkerId{worker};
    record.incarnation = Incarnation{incarnation};
    record.step = Step{step};
    return !scopes.handed_out(shard, record);
}

std::string judge(ScopeInvariants& scopes, NodeId shard, std::uint64_t step, std::uint64_t decision,
                  Verdict verdict = Verdict::applied) {
    VerdictRecord record;
    record.worker = WorkerId{1};
    record.incarnation = Incarnation{1};
    record.step = Step{step};
    if (decision > 0) record.decision = {Epoch{1}, decision};
    record.rows.emplace_back();
    record.rows.front().verdict = verdict;
    return scopes.judged(shard, record).value_or("");
}

}  // namespace

TEST_CASE("scope invariants: no step begins at the lead shard until all have changed") {
    ScopeInvariants scopes(job_under("async"), 2);
    CHECK(may_begin(scopes, 1, 5));
    scopes.decided(change_to("ssp", 1, {step_of(1, 5)}));
    CHECK(may_begin(scopes, 1, 5));  // it has begun
    CHECK_FALSE(may_begin(scopes, 1, 6));
    CHECK_FALSE(may_begin(scopes, 1, 5, 2));    // another process
    CHECK_FALSE(may_begin(scopes, 2, 1));       // none of its steps has
    CHECK(may_begin(scopes, 1, 6, 1, kOther));  // the gate is the lead's
    scopes.changed(kLead);
    scopes.decided(change_to("ssp", 1, {step_of(1, 5)}));  // sent again
    CHECK_FALSE(may_begin(scopes, 1, 6));
    scopes.changed(kOther);
    CHECK(may_begin(scopes, 1, 6));
    CHECK(may_begin(scopes, 2, 1));
}

TEST_CASE("scope invariants: a change within a scope or to block scope shuts no gate") {
    ScopeInvariants scopes(job_under("async"), 2);
    scopes.decided(change_to("dc_asgd", 1));
    CHECK(may_begin(scopes, 1, 6));
    ScopeInvariants steps(job_under("ssp"), 2);
    steps.decided(change_to("bsp", 3));
    steps.decided(change_to("async", 9));
    CHECK(may_begin(steps, 1, 6));
    // There again: made by each when it has made the two before.
    steps.decided(change_to("ssp", 12, {step_of(1, 6)}));
    for (int change = 0; change < 3; ++change) steps.changed(kLead);
    for (int change = 0; change < 2; ++change) steps.changed(kOther);
    CHECK_FALSE(may_begin(steps, 1, 7));
    steps.changed(kOther);
    CHECK(may_begin(steps, 1, 7));
}

TEST_CASE("scope invariants: a step that two shards judge in two ways is found") {
    ScopeInvariants scopes(job_under("async"), 2);
    CHECK(judge(scopes, kLead, 1, 0).empty());
    CHECK(judge(scopes, kOther, 1, 0, Verdict::rejected).empty());
    CHECK(judge(scopes, kLead, 2, 0).empty());
    CHECK(judge(scopes, kOther, 2, 0, Verdict::lost).empty());
    CHECK(judge(scopes, kOther, 2, 7) ==
          "worker:1 incarnation 1 step 2 is torn between two scopes: shard:1 judges it as the lead "
          "shard decided, shard:0 did so alone");
    CHECK(judge(scopes, kOther, 3, 8).empty());
    CHECK_FALSE(judge(scopes, kLead, 3, 0).empty());
}

TEST_CASE("scope invariants: a job that is begun again has its own policy and no gate") {
    ScopeInvariants scopes(job_under("async"), 2);
    scopes.decided(change_to("ssp", 4));
    CHECK_FALSE(may_begin(scopes, 1, 6));
    scopes.restarted();
    CHECK(may_begin(scopes, 1, 6));
    scopes.decided(change_to("ssp", 1));  // its numbers begin anew
    CHECK_FALSE(may_begin(scopes, 1, 6));
}

}  // namespace detente
