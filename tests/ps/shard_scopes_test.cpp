// One shard that goes over from block scope to step scope, and back: what waits, and what is judged
// how. Whole clusters: tests/sim/scope_change_test.cpp.
#include "common/ledger_controls.h"
#include "tests/ps/one_shard.h"

namespace detente {
namespace {

using test::kHead;
using test::kTrunk;
using test::OneShard;

Job job_under(const std::string& policy) {
    Job job = test::job_of();
    job.policy = {policy, {}};
    return job;
}

PolicyChange change_to(const std::string& policy) { return {1, policy, {}, "a test"}; }

bool decides_steps(OneShard& shard) { return shard.shard().store().step_policy() != nullptr; }

void ask(OneShard& shard, const std::string& policy, std::optional<Admission> admission = {}) {
    PolicyChange change = change_to(policy);
    change.admission = admission;
    shard.world().receive(kCoordinator, change);
}

// Control records that have this in their text.
std::size_t told(OneShard& shard, const std::string& text) {
    std::size_t count = 0;
    for (const ControlRecord& record : shard.world().records<ControlRecord>()) {
        count += record.what.find(text) != std::string::npos ? 1 : 0;
    }
    return count;
}

Push whole(OneShard& shard, std::uint64_t step, std::uint64_t base) {
    return shard.push_of(
        step, {shard.gradient(kTrunk, 1, Version{base}), shard.gradient(kHead, 1, Version{base})});
}

// One of two servers that is not the lead's, with two blocks that are trained.
OneShard other_shard() {
    ModelDescription model;
    model.model = "four";
    model.tasks = {"a"};
    model.training_samples = 640;
    for (const char* name : {"one", "two", "three", "four"}) {
        model.tensors.push_back({name, {40}, TaskSet{1}});
    }
    Job job = job_under("async");
    job.servers = 2;
    OneShard shard(model, job, ShardId{1});
    shard.initialise();
    REQUIRE(shard.shard().store().trainable() == 2);
    return shard;
}

Push all_blocks(OneShard& shard, std::uint64_t step, std::uint64_t base) {
    std::vector<GradientBlock> blocks;
    for (const BlockId id : shard.shard().store().ids()) {
        blocks.push_back(shard.gradient(id, 1, Version{base}));
    }
    return shard.push_of(step, std::move(blocks));
}

void end_run(OneShard& shard) {
    Stop stop;
    stop.drain = false;
    shard.world().receive(kCoordinator, stop);
}

}  // namespace

TEST_CASE("scopes: steps are decided once all that have begun are judged block by block") {
    OneShard shard(40, job_under("async"));
    shard.initialise();
    shard.pull(0, 1);
    shard.pull(1, 1);
    ask(shard, "ssp");
    CHECK(shard.last<PolicyChanged>().error.empty());
    CHECK_FALSE(decides_steps(shard));
    // No step begins meanwhile; what has begun is judged as before, and asked for again as before.
    const std::size_t pulls = shard.count<PullReply>();
    shard.pull(0, 1);
    CHECK(shard.count<PullReply>() == pulls + 1);
    shard.from(0, whole(shard, 1, 0));
    CHECK(shard.version(kTrunk) == 1);
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    shard.pull(0, 2);
    shard.pull(2, 1);
    CHECK(shard.count<PullReply>() == pulls + 1);
    CHECK(shard.last<Wait>().why == WaitFor::release);
    CHECK_FALSE(decides_steps(shard));
    shard.from(1, whole(shard, 1, 0));
    CHECK(shard.version(kTrunk) == 2);
    // That was the last one.
    CHECK(decides_steps(shard));
    CHECK(shard.count<PullReply>() == pulls + 3);
    shard.from(0, whole(shard, 2, 2));
    CHECK(shard.version(kTrunk) == 3);
    CHECK(shard.books().applied == 6);
}

TEST_CASE("scopes: a reply that would bring weights of another step waits with its verdict") {
    OneShard shard(40, job_under("async"));
    shard.initialise();
    shard.pull(0, 1);
    shard.pull(1, 1);
    ask(shard, "ssp");
    Push push = whole(shard, 1, 0);
    push.opens = {2};
    shard.from(0, push);
    CHECK(shard.version(kTrunk) == 1);
    CHECK(shard.count<PushReply>() == 0);
    CHECK(shard.last<Wait>().why == WaitFor::release);
    push.blocks.clear();  // asked after
    shard.from(0, push);
    CHECK(shard.count<PushReply>() == 0);
    CHECK(shard.count<Refusal>() == 0);
    shard.from(1, whole(shard, 1, 0));
    CHECK(decides_steps(shard));
    const auto replies = shard.world().of<PushReply>();
    REQUIRE(replies.size() == 2);
    CHECK(replies[1].second.opened == Step{2});
    CHECK(replies[1].second.blocks.size() == 2);
    CHECK(replies[1].second.blocks[0].version == Version{2});
}

TEST_CASE("scopes: whoever asks for weights before its verdict waits where steps are decided") {
    OneShard shard(40, job_under("async"));
    shard.initialise();
    shard.pull(0, 1);
    shard.from(0, whole(shard, 1, 0));
    shard.pull(1, 1);
    shard.from(1, whole(shard, 1, 1));
    ask(shard, "bsp");
    REQUIRE(decides_steps(shard));  // nothing was under way
    shard.pull(0, 2);
    shard.pull(1, 2);
    const std::size_t pulls = shard.count<PullReply>();
    shard.from(0, whole(shard, 2, 2));
    CHECK(shard.last<Wait>().why == WaitFor::verdict);
    shard.pull(0, 3);
    CHECK(shard.count<PullReply>() == pulls);
    CHECK(shard.last<Wait>().why == WaitFor::release);
    shard.from(1, whole(shard, 2, 2));
    CHECK(shard.version(kTrunk) == 3);
    REQUIRE(shard.count<PullReply>() == pulls + 1);
    CHECK(shard.last<PullReply>().blocks.at(0).version == Version{3});
}

TEST_CASE("scopes: weights handed out before the change are as old as they are after it") {
    // It learns of the change when it has handed out weights beyond the gate.
    OneShard shard = other_shard();
    const std::vector<BlockId> blocks = shard.shard().store().ids();
    shard.pull(0, 1, blocks);
    shard.pull(1, 2, blocks);
    StageDecision decision;
    decision.sequence = {Epoch{1}, 1};
    decision.changes.push_back(change_to("bsp"));
    decision.cuts = {{WorkerId{0}, Incarnation{1}, Step{1}},
                     {WorkerId{1}, Incarnation{1}, Step{1}}};
    shard.world().receive(node_of(kLeadShard), decision);
    CHECK(shard.last<StageReply>().sequence.number == 0);
    shard.from(0, all_blocks(shard, 1, 0));
    CHECK(shard.last<StageReply>().sequence.number == 0);  // worker 1's step 1 is not over
    shard.from(1, CancelNote{Step{1}, CancelReason::dropped, Step{0}});
    CHECK(decides_steps(shard));
    CHECK(shard.last<StageReply>().sequence.number == 1);
    shard.from(1, all_blocks(shard, 2, 0));
    const StageNotice first = shard.last<StageNotice>();
    shard.pull(2, 1, blocks);
    shard.from(2, all_blocks(shard, 1, 1));
    const StageNotice second = shard.last<StageNotice>();
    CHECK(second.version == first.version + 1);
}

TEST_CASE("scopes: what is staged and not decided is judged by itself when block scope begins") {
    OneShard shard(40, job_under("bsp"));
    shard.initialise();
    for (std::uint32_t worker = 0; worker < 3; ++worker) shard.pull(worker, 1);
    Push first = shard.push_of(1, {shard.gradient(kTrunk)}, 0);
    Push second = shard.push_of(1, {shard.gradient(kHead)}, 1);
    first.parts = second.parts = 2;
    shard.from(0, first);  // the other part is on its way
    CHECK(shard.books().in_flight == 6);
    ask(shard, "async");
    CHECK_FALSE(decides_steps(shard));
    CHECK(shard.version(kTrunk) == 1);
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    CHECK(shard.version(kHead) == 0);
    shard.from(0, second);
    CHECK(shard.version(kHead) == 1);
    shard.from(0, second);
    CHECK(shard.version(kHead) == 1);  // once
    CHECK(shard.books().applied == 2);
    CHECK(shard.shard().leftover() == std::optional<std::string>("3 workers that have not left"));
}

TEST_CASE("scopes: a step that was aborted stays so when block scope begins") {
    OneShard shard(40, job_under("bsp"));
    shard.initialise();
    shard.pull(0, 1);
    Push first =
        shard.push_of(1, {shard.gradient(kTrunk, std::numeric_limits<float>::quiet_NaN())}, 0);
    Push second = shard.push_of(1, {shard.gradient(kHead)}, 1);
    first.parts = second.parts = 2;
    shard.from(0, first);
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::rejected);
    ask(shard, "async");
    CHECK_FALSE(decides_steps(shard));
    shard.from(0, second);
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::rejected);
    CHECK(shard.version(kHead) == 0);
}

TEST_CASE("scopes: a step that leaves a shard out is refused there, so that nobody waits for it") {
    OneShard shard = other_shard();
    const std::vector<BlockId> blocks = shard.shard().store().ids();
    StageDecision decision;
    decision.sequence = {Epoch{1}, 1};
    decision.changes.push_back(change_to("bsp"));
    shard.world().receive(node_of(kLeadShard), decision);
    REQUIRE(decides_steps(shard));
    shard.pull(0, 1, blocks);
    const std::size_t before = shard.count<StageNotice>();
    shard.from(0, CancelNote{Step{1}, CancelReason::recompute, Step{0}});
    REQUIRE(shard.count<StageNotice>() == before + 1);
    CHECK_FALSE(shard.last<StageNotice>().staged);
    CHECK(shard.last<StageNotice>().push == PushId{WorkerId{0}, Incarnation{1}, Step{1}});
    // A step that was begun in vain is nobody's.
    shard.pull(0, 2, blocks);
    shard.from(0, CancelNote{Step{2}, CancelReason::dropped, Step{0}});
    CHECK(shard.count<StageNotice>() == before + 1);
}

TEST_CASE("scopes: admission alone puts the same policy under the lead, and takes it away again") {
    OneShard shard(40, job_under("async"));
    shard.initialise();
    shard.pull(0, 1);
    ask(shard, "async", Admission::step);
    CHECK(shard.last<PolicyChanged>().error.empty());
    CHECK(shard.last<PolicyChanged>().later);
    CHECK_FALSE(decides_steps(shard));  // worker 0's step has begun
    shard.from(0, whole(shard, 1, 0));
    REQUIRE(decides_steps(shard));
    CHECK(shard.shard().store().job_policy().name() == "async");
    CHECK(told(shard, "'async' in place of 'async', admission step, by a test") == 1);
    // Another policy keeps to it.
    ask(shard, "inverse");
    CHECK_FALSE(shard.last<PolicyChanged>().later);
    CHECK(decides_steps(shard));
    CHECK(told(shard, "'inverse' in place of 'async', admission step, by a test") == 1);
    ask(shard, "inverse", Admission::block);
    CHECK(shard.last<PolicyChanged>().error.empty());
    CHECK_FALSE(decides_steps(shard));
}

TEST_CASE("scopes: under a policy that decides steps admission is for the policy after it") {
    OneShard shard(40, job_under("bsp"));
    shard.initialise();
    ask(shard, "bsp", Admission::step);
    CHECK(shard.last<PolicyChanged>().error.empty());
    ask(shard, "async");
    CHECK(decides_steps(shard));
    ask(shard, "async", Admission::block);
    CHECK_FALSE(decides_steps(shard));
}

TEST_CASE("scopes: a policy that decides steps and admission per block are refused by both names") {
    for (const char* running : {"async", "bsp"}) {
        INFO(running);
        OneShard shard(40, job_under(running));
        shard.initialise();
        const bool before = decides_steps(shard);
        ask(shard, "bsp", Admission::block);
        CHECK(shard.last<PolicyChanged>().code == ErrorCode::bad_job);
        CHECK_THAT(shard.last<PolicyChanged>().error,
                   Catch::Contains("staleness.admission = \"block\"") &&
                       Catch::Contains("staleness.policy = 'bsp'"));
        CHECK(decides_steps(shard) == before);
        CHECK(told(shard, "staleness policy") == 0);
    }
}

TEST_CASE("scopes: what goes with block scope only refuses admission per step, by name") {
    Job job = job_under("async");
    job.pull_ahead = 1;
    OneShard shard(40, job);
    shard.initialise();
    ask(shard, "async", Admission::step);
    CHECK(shard.last<PolicyChanged>().code == ErrorCode::not_supported);
    CHECK_THAT(shard.last<PolicyChanged>().error,
               Catch::Contains("'async' under staleness.admission = \"step\" decides per step") &&
                   Catch::Contains("worker.pull_ahead"));
    CHECK_FALSE(decides_steps(shard));
}

TEST_CASE("scopes: a change that the end of the run overtakes is in the ledger as one not made") {
    OneShard shard(40, job_under("async"));
    shard.initialise();
    shard.pull(0, 1);
    ask(shard, "ssp");
    CHECK(shard.last<PolicyChanged>().later);
    CHECK(told(shard, "change to policy 'ssp', admission block, by a test, decision 1:") == 1);
    CHECK(told(shard, ": decided, and made when") == 1);
    CHECK(told(shard, "not made here") == 0);
    end_run(shard);
    CHECK(told(shard, "change to policy 'ssp', admission block, by a test, decision 1:") == 2);
    CHECK(told(shard, ": not made here, for the run ended before") == 1);
    for (const ControlRecord& record : shard.world().records<ControlRecord>()) {
        CHECK_FALSE(changes_policy(record));
    }
}

TEST_CASE("scopes: a change that is made before the end is not called overtaken") {
    OneShard shard(40, job_under("async"));
    shard.initialise();
    shard.pull(0, 1);
    ask(shard, "ssp");
    shard.from(0, whole(shard, 1, 0));
    REQUIRE(decides_steps(shard));
    end_run(shard);
    CHECK(told(shard, ": decided, and made when") == 1);
    CHECK(told(shard, "staleness policy 'ssp'") == 1);
    CHECK(told(shard, "not made here") == 0);
}

}  // namespace detente
