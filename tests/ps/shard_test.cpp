// What a shard makes of a push: taken once, or refused by name.
#include "ps/shard.h"

#include <catch2/catch.hpp>
#include <limits>

#include "common/rules/schedule.h"
#include "tests/ps/one_shard.h"

namespace detente {
namespace {

using test::kEmbedding;
using test::kHead;
using test::kTrunk;
using test::OneShard;

// Sends it from worker 0 and requires a refusal of that kind that changed nothing.
void check_refused(OneShard& shard, Push push, ErrorCode code) {
    const Step step = push.step;
    const Part part = push.part;
    const std::uint64_t version = shard.version(kTrunk);
    const std::uint64_t in_flight = shard.books().in_flight;
    const std::size_t refusals = shard.count<Refusal>();
    const std::size_t replies = shard.count<PushReply>();
    shard.from(0, std::move(push));
    REQUIRE(shard.count<Refusal>() == refusals + 1);
    CHECK(shard.count<PushReply>() == replies);
    const auto refusal = shard.last<Refusal>();
    INFO(refusal.text);
    CHECK(refusal.code == code);
    CHECK(refusal.step == step);
    CHECK(refusal.part == part);
    CHECK(shard.version(kTrunk) == version);
    CHECK(shard.weight(kTrunk) == 1.0F);
    CHECK(shard.books().in_flight == in_flight);
    CHECK(shard.books().applied == 0);
}

}  // namespace

TEST_CASE("a push is applied once, its version grows by one and the books say so") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1, {kTrunk, kHead});
    CHECK(shard.books().in_flight == 2);
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk), shard.gradient(kHead)}));
    const auto reply = shard.last<PushReply>();
    REQUIRE(reply.verdicts.size() == 2);
    CHECK(reply.verdicts[0].block == kTrunk);
    CHECK(reply.verdicts[0].verdict == Verdict::applied);
    CHECK(reply.verdicts[0].version == Version{1});
    CHECK(reply.verdicts[0].staleness == 0);
    CHECK(reply.blocks.empty());
    CHECK(shard.weight(kTrunk) == 0.5F);  // 1 − 0.5·1
    CHECK(shard.books().computed == 2);
    CHECK(shard.books().applied == 2);
    CHECK(shard.books().in_flight == 0);
    CHECK(shard.block(kTrunk).samples_applied == 64);
}

TEST_CASE("versions grow by exactly one per apply, whoever pushes") {
    OneShard shard;
    shard.initialise();
    for (std::uint64_t n = 0; n < 9; ++n) {
        const auto worker = static_cast<std::uint32_t>(n % 3);
        shard.from(worker, shard.push_of(1 + n / 3, {shard.gradient(kTrunk, 1, {n / 2})}));
        CHECK(shard.version(kTrunk) == n + 1);
        CHECK(shard.block(kTrunk).updates == n + 1);
        CHECK(shard.last<PushReply>().verdicts[0].staleness == n - n / 2);
    }
    CHECK(shard.version(kHead) == 0);
}

TEST_CASE("staleness of hundreds of versions is counted in a bin near it") {
    Job job = test::job_of();
    job.policy = {"async", {}};
    OneShard shard(40, job);
    shard.initialise();
    for (std::uint64_t n = 0; n < 200; ++n) {
        Push push =
            shard.push_of(n + 1, {shard.gradient(kTrunk, 0, {n}), shard.gradient(kHead, 0, {n})});
        push.acknowledged = {n};
        shard.from(0, push);
    }
    shard.from(1, shard.push_of(1, {shard.gradient(kTrunk, 0, {0})}));
    REQUIRE(shard.last<PushReply>().verdicts[0].staleness == 200);
    CHECK(shard.reported("staleness.max") == 200);
    const std::vector<std::uint64_t> bins = shard.last<Status>().staleness;
    CHECK(bins[0] == 400);  // of two blocks
    REQUIRE(bins.size() == staleness_bin(200) + 1);
    CHECK(bins.back() == 1);
}

TEST_CASE("a push that is too stale is rejected by the policy and applied nowhere") {
    OneShard shard;
    shard.initialise();
    for (std::uint64_t n = 0; n < 9; ++n) {
        shard.from(0, shard.push_of(n + 1, {shard.gradient(kTrunk, 1, {n})}));
    }
    const float before = shard.weight(kTrunk);
    shard.from(1, shard.push_of(1, {shard.gradient(kTrunk, 1, {0})}));  // τ = 9, τ_max = 8
    const BlockVerdict verdict = shard.last<PushReply>().verdicts[0];
    CHECK(verdict.verdict == Verdict::rejected);
    CHECK(verdict.reason == ErrorCode::over_limit);
    CHECK(verdict.version == Version{9});
    CHECK(shard.weight(kTrunk) == before);
    CHECK(shard.books().rejected == 1);
    CHECK(shard.books().applied == 9);
}

TEST_CASE("a push that cannot be taken is refused with its code and changes nothing") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1);
    Push push = shard.push_of(1, {shard.gradient(kTrunk)});
    SECTION("an unknown block") {
        push.blocks[0].block = BlockId{99};
        check_refused(shard, push, ErrorCode::unknown_block);
    }
    SECTION("a frozen block") {
        push.blocks[0] = shard.gradient(kEmbedding);
        push.blocks[0].tasks = TaskSet{1};
        check_refused(shard, push, ErrorCode::not_owner);
    }
    SECTION("a task that does not own the block") {
        push.blocks[0] = shard.gradient(kHead);
        push.blocks[0].tasks = TaskSet{3};
        check_refused(shard, push, ErrorCode::not_owner);
    }
    SECTION("no task at all") {
        push.blocks[0].tasks = TaskSet{};
        check_refused(shard, push, ErrorCode::not_owner);
    }
    SECTION("too few floats") {
        push.blocks[0].gradient = test::floats(39, 1);
        check_refused(shard, push, ErrorCode::bad_length);
    }
    SECTION("too many floats") {
        push.blocks[0].gradient = test::floats(41, 1);
        check_refused(shard, push, ErrorCode::bad_length);
    }
    SECTION("a base version that does not exist yet") {
        push.blocks[0].base = Version{1};
        check_refused(shard, push, ErrorCode::bad_message);
    }
    SECTION("rows of a table") {
        push.encoding = Encoding::rows;
        check_refused(shard, push, ErrorCode::not_supported);
    }
    SECTION("no blocks") {
        push.blocks.clear();
        check_refused(shard, push, ErrorCode::bad_message);
    }
    SECTION("no samples") {
        push.samples = 0;
        check_refused(shard, push, ErrorCode::bad_message);
    }
    SECTION("more samples than the job's batch") {
        push.samples = 65;
        check_refused(shard, push, ErrorCode::bad_message);
    }
    SECTION("one block twice in a part") {
        push.blocks.push_back(shard.gradient(kTrunk));
        check_refused(shard, push, ErrorCode::bad_message);
    }
    SECTION("a refusable block after a good one: nothing of the part is applied") {
        push.blocks.push_back(shard.gradient(kHead));
        push.blocks[1].tasks = TaskSet{2};
        check_refused(shard, push, ErrorCode::not_owner);
    }
}

TEST_CASE("a block that lives on another shard is unknown to this one") {
    Job job = test::job_of();
    job.servers = 2;
    OneShard other(40, job, ShardId{1});
    other.initialise();
    const std::vector<BlockId>& here = other.plan().by_shard[1];
    const BlockId elsewhere = other.plan().by_shard[0].front();
    REQUIRE(std::find(here.begin(), here.end(), elsewhere) == here.end());
    Push push = other.push_of(1, {other.gradient(elsewhere)});
    push.blocks[0].tasks = TaskSet{1};
    other.from(0, push);
    CHECK(other.last<Refusal>().code == ErrorCode::unknown_block);
    other.pull(0, 1, {elsewhere});
    CHECK(other.last<Refusal>().code == ErrorCode::unknown_block);
    CHECK(other.last<Refusal>().request == 1);
}

TEST_CASE("a block that an earlier part of the step settled is refused in another part") {
    OneShard shard;
    shard.initialise();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}, 0));
    REQUIRE(shard.books().applied == 1);
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk, 1, {1})}, 1));
    CHECK(shard.last<Refusal>().code == ErrorCode::over_limit);
    CHECK(shard.version(kTrunk) == 1);
    CHECK(shard.books().in_flight == 1);  // the head's block is still expected
    shard.from(0, shard.push_of(1, {shard.gradient(kHead)}, 1));
    CHECK(shard.version(kHead) == 1);
    CHECK(shard.books().in_flight == 0);
}

TEST_CASE("a worker this job does not have gets no answer and opens no books") {
    OneShard shard;
    shard.initialise();
    shard.from(3, shard.push_of(1, {shard.gradient(kTrunk)}));
    shard.from(4, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(shard.world().sent.empty());
    CHECK(shard.books().computed == 0);
    CHECK(shard.version(kTrunk) == 0);
    CHECK(shard.warnings() == 1);
    CHECK(shard.reported("refused.bad_message") == 2);
}

TEST_CASE("a gradient of another epoch is rejected with the advice to refresh") {
    OneShard shard;
    shard.initialise();
    Push push = shard.push_of(1, {shard.gradient(kTrunk, 1, {1000})});
    push.blocks[0].epoch = Epoch{7};
    shard.from(0, push);
    const BlockVerdict verdict = shard.last<PushReply>().verdicts[0];
    CHECK(verdict.verdict == Verdict::rejected);
    CHECK(verdict.advice == Advice::refresh);
    CHECK(verdict.reason == ErrorCode::wrong_epoch);
    CHECK(verdict.epoch == Epoch{1});
    CHECK(verdict.version == Version{0});
    CHECK(shard.weight(kTrunk) == 1.0F);
    CHECK(shard.books().rejected == 1);
}

TEST_CASE("of a part with NaN nothing is applied, it is logged once and counted each time") {
    const float bad =
        GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
    OneShard shard;
    shard.initialise();
    for (std::uint64_t step = 1; step <= 3; ++step) {
        shard.from(0, shard.push_of(step, {shard.gradient(kTrunk), shard.gradient(kHead, bad)}));
        const auto reply = shard.last<PushReply>();
        REQUIRE(reply.verdicts.size() == 2);
        for (const BlockVerdict& verdict : reply.verdicts) {
            CHECK(verdict.verdict == Verdict::rejected);
            CHECK(verdict.reason == ErrorCode::not_finite);
            CHECK(verdict.advice == Advice::drop);
            CHECK(verdict.version == Version{0});
        }
    }
    CHECK(shard.weight(kTrunk) == 1.0F);
    CHECK(shard.books().rejected == 6);
    CHECK(shard.books().applied == 0);
    CHECK(shard.warnings() == 1);
    CHECK(shard.reported("refused.not_finite") == 3);
    CHECK(shard.count<Refusal>() == 0);
}

TEST_CASE("a message with NaN in two blocks is counted as one refused message") {
    constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
    OneShard shard;
    shard.initialise();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk, kNaN), shard.gradient(kHead, kNaN)}));
    CHECK(shard.reported("refused.not_finite") == 1);
    CHECK(shard.books().rejected == 2);
}

TEST_CASE("the ledger has the rate each block was applied with, to the bit, and the hash") {
    Job job = test::job_of();
    job.schedule.name = "cosine";
    job.schedule.warmup_samples = 100;
    job.schedule.total_samples = 1000;
    job.policy.name = "inverse";
    job.policy.parameters = {};
    OneShard shard(40, job);
    shard.initialise();
    for (std::uint64_t step = 1; step <= 4; ++step) {  // ever staler
        Push push = shard.push_of(step, {shard.gradient(kTrunk)});
        push.gradient_hash = 100 + step;
        shard.from(0, push);
    }
    const auto records = shard.world().records<VerdictRecord>();
    REQUIRE(records.size() == 4);
    for (std::size_t i = 0; i < records.size(); ++i) {
        CHECK(records[i].gradient_hash == 101 + i);
        const VerdictRecord::Row& row = records[i].rows.at(0);
        const double scheduled = 0.5 * schedule_factor(job.schedule, 64 * i);
        CHECK(row.scheduled_rate == scheduled);
        CHECK(row.learning_rate() == scheduled * static_cast<double>(row.step_scale));
        if (i >= 2) CHECK(row.step_scale < 1);
    }
}

TEST_CASE("a part with a wrong checksum is refused, and applied once when it comes whole") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1, {kTrunk, kHead});
    Push push = shard.push_of(1, {shard.gradient(kTrunk), shard.gradient(kHead)});
    for (GradientBlock& block : push.blocks) block.checksum = checksum_of(block.gradient.bytes);
    Push altered = push;
    altered.blocks[1].checksum = *altered.blocks[1].checksum ^ 1U;
    check_refused(shard, altered, ErrorCode::bad_checksum);
    shard.from(0, push);
    CHECK(shard.version(kTrunk) == 1);
    CHECK(shard.version(kHead) == 1);
    CHECK(shard.weight(kTrunk) == 0.5F);
    CHECK(shard.books().applied == 2);
    CHECK(shard.books().computed == 2);
}

TEST_CASE("a push that comes again gets the recorded verdict and is not applied again") {
    OneShard shard;
    shard.initialise();
    const Push push = shard.push_of(1, {shard.gradient(kTrunk)});
    shard.from(0, push);
    shard.from(1, shard.push_of(1, {shard.gradient(kTrunk)}));
    shard.from(0, push);
    REQUIRE(shard.count<PushReply>() == 3);
    const BlockVerdict again = shard.last<PushReply>().verdicts.at(0);
    CHECK(again.verdict == Verdict::applied);
    CHECK(again.version == Version{1});  // as it was then, though the block is at 2
    CHECK(shard.version(kTrunk) == 2);
    CHECK(shard.books().applied == 2);
    CHECK(shard.world().records<VerdictRecord>().size() == 2);
    CHECK(shard.reported("repeated") == 1);
}

TEST_CASE("a late double of an acknowledged step is neither answered nor applied") {
    OneShard shard;
    shard.initialise();
    const Push push = shard.push_of(1, {shard.gradient(kTrunk), shard.gradient(kHead)});
    shard.from(0, push);
    shard.pull(0, 2, {kTrunk}, 1, 1);
    const std::size_t said = shard.world().sent.size();
    shard.from(0, push);
    CHECK(shard.world().sent.size() == said);
    CHECK(shard.version(kTrunk) == 1);
    CHECK(shard.books().applied == 2);
}

TEST_CASE("push and pull in one: the reply has the new blocks and opens the next step") {
    OneShard shard;
    shard.initialise();
    Push push = shard.push_of(1, {shard.gradient(kTrunk), shard.gradient(kHead)});
    push.opens = Step{2};
    shard.from(0, push);
    const auto reply = shard.last<PushReply>();
    CHECK(reply.opened == Step{2});
    REQUIRE(reply.blocks.size() == 2);
    CHECK(reply.blocks[0].block == kTrunk);
    CHECK(reply.blocks[0].version == Version{1});
    CHECK(test::value_of(reply.blocks[0].weights) == 0.5F);
    CHECK(shard.books().computed == 4);
    CHECK(shard.books().in_flight == 2);
    // Sent again it opens nothing more, but brings what the shard holds by then.
    shard.from(1, shard.push_of(1, {shard.gradient(kTrunk, 0.5F, {1})}));
    shard.from(0, push);
    CHECK(shard.last<PushReply>().blocks.at(0).version == Version{2});
    CHECK(test::value_of(shard.last<PushReply>().blocks.at(0).weights) == 0.25F);
    CHECK(shard.books().in_flight == 3);  // worker 0's step 2, worker 1's head
}

TEST_CASE("a worker that leaves too many steps unsettled is refused one more") {
    OneShard shard;
    shard.initialise();
    for (std::uint64_t step = 1; step <= Duplicates::kMostOpenSteps; ++step) shard.pull(0, step);
    CHECK(shard.count<Refusal>() == 0);
    shard.pull(0, Duplicates::kMostOpenSteps + 1);
    CHECK(shard.last<Refusal>().code == ErrorCode::over_limit);
    CHECK(shard.last<Refusal>().request == Duplicates::kMostOpenSteps + 1);
    CHECK(shard.books().in_flight == 2 * Duplicates::kMostOpenSteps);
}

TEST_CASE("a push or pull before the first weights is refused") {
    OneShard shard;
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(shard.last<Refusal>().code == ErrorCode::wrong_epoch);
    shard.pull(0, 1);
    CHECK(shard.count<Refusal>() == 2);
    CHECK(shard.last<Refusal>().code == ErrorCode::wrong_epoch);
    CHECK(shard.books().computed == 0);
}

}  // namespace detente
