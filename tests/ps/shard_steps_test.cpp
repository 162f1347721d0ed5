// One shard under step scope: what it stages, and what it refuses.
#include "tests/ps/one_shard.h"

namespace detente {
namespace {

using test::kHead;
using test::kTrunk;
using test::OneShard;

Job step_job() {
    Job job = test::job_of();
    job.policy = {"async", {}};
    job.admission = Admission::step;
    return job;
}

}  // namespace

TEST_CASE("staged: parts of one push that contradict each other are refused, and nothing applied") {
    for (const int what : {0, 1, 2}) {
        INFO(what);
        OneShard shard(40, step_job());
        shard.initialise();
        Push first = shard.push_of(1, {shard.gradient(kTrunk)}, 0);
        Push second = shard.push_of(1, {shard.gradient(kHead)}, 1);
        first.parts = second.parts = 2;
        Push other = second;
        if (what == 0) other.parts = 3;
        if (what == 1) other.samples = 63;
        if (what == 2) other.batch.first = 7;
        shard.from(0, first);
        shard.from(0, other);
        REQUIRE(shard.count<Refusal>() == 1);
        CHECK(shard.last<Refusal>().code == ErrorCode::bad_message);
        CHECK(shard.last<Refusal>().text.find("contradicts") != std::string::npos);
        CHECK(shard.version(kTrunk) == 0);
        shard.from(0, second);
        CHECK(shard.version(kTrunk) == 1);
        CHECK(shard.version(kHead) == 1);
        CHECK(shard.books().applied == 2);
    }
}

// The change waits behind an update that finds no spare; whom its policy holds is held at once, or
// that policy would be told of weights that it takes for no worker's.
TEST_CASE("staged: the lead's shard hands no weights to whom the lead holds though it waits") {
    constexpr std::uint64_t kLargeBlock = 1U << 20U;  // elements: shared with replies
    constexpr std::uint64_t kSpares = BlockStore::kSpareBytes / (kLargeBlock * sizeof(float));
    OneShard shard(kLargeBlock, step_job());
    shard.initialise();
    for (std::uint64_t step = 1; step <= kSpares + 1; ++step) {
        shard.pull(0, step, {kTrunk}, 1, step - 1);  // the reply stays in sent
        shard.from(0, shard.push_of(step, {shard.gradient(kTrunk, 0.25F, {step - 1}),
                                           shard.gradient(kHead, 0.25F, {step - 1})}));
    }
    REQUIRE(shard.version(kTrunk) == kSpares);
    shard.world().receive(kCoordinator, PolicyChange{1, "capacity", {{"limit", "1"}}, "a test"},
                          {1});
    REQUIRE(shard.last<PolicyChanged>().error.empty());
    const std::size_t handed = shard.count<PullReply>();
    shard.pull(1, 1);
    CHECK(shard.count<PullReply>() == handed);
    CHECK(shard.last<Wait>().why == WaitFor::release);
    // Nor does it when it has made the change: worker 0 may compute, and one at a time.
    shard.world().sent.clear();
    shard.world().give(BuffersReturned{});
    shard.world().give(BuffersReturned{});
    CHECK(shard.version(kTrunk) == kSpares + 1);
    CHECK(shard.count<PullReply>() == 0);
}

TEST_CASE("staged: a push that lacks blocks is rejected whole") {
    OneShard shard(40, step_job());
    shard.initialise();
    shard.pull(0, 1);
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::rejected);
    CHECK(shard.version(kTrunk) == 0);
    CHECK(shard.reported("refused.bad_message") == 1);
}

}  // namespace detente
