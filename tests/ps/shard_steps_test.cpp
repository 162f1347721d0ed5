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
