// Bytes a shard has lent to replies and checkpoints: nobody sees them change, they come back, and
// when too many are out pushes wait.
#include <catch2/catch.hpp>

#include "ps/checkpoint.h"
#include "tests/ps/one_shard.h"

namespace detente {
namespace {

using test::kHead;
using test::kTrunk;
using test::OneShard;

constexpr std::uint64_t kLargeBlock = 1U << 20U;  // elements: 4 MiB, shared with replies
constexpr std::uint64_t kLargeBytes = kLargeBlock * sizeof(float);
constexpr std::uint64_t kSpares = BlockStore::kSpareBytes / kLargeBytes;

// A worker's whole step on the trunk; the reply to its pull stays in sent, as if it had not left.
void step_of_worker(OneShard& shard, std::uint64_t step) {
    shard.pull(0, step, {kTrunk}, 1, step - 1);
    shard.from(0, shard.push_of(step, {shard.gradient(kTrunk, 0.25F, {step - 1}),
                                       shard.gradient(kHead, 0.25F, {step - 1})}));
}

// Every spare lent to replies that were kept, and one more push waiting.
void exhaust(OneShard& shard) {
    shard.initialise();
    for (std::uint64_t step = 1; step <= kSpares; ++step) step_of_worker(shard, step);
    REQUIRE(shard.version(kTrunk) == kSpares);
    step_of_worker(shard, kSpares + 1);
    REQUIRE(shard.version(kTrunk) == kSpares);
}

std::string file_of(const StoreOp& operation) {
    std::string bytes;
    for (const Payload& piece : operation.pieces) {
        bytes.append(reinterpret_cast<const char*>(piece.bytes.data()), piece.size());
    }
    return bytes;
}

}  // namespace

TEST_CASE("a reply that has not left is not changed by the next apply") {
    OneShard shard(kLargeBlock);
    shard.initialise();
    shard.pull(0, 1);
    const Payload held = shard.last<PullReply>().blocks.at(0).weights;
    CHECK(held.bytes.data() == shard.block(kTrunk).weights->data());  // shared, not copied
    shard.world().sent.clear();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(test::value_of(held) == 1.0F);
    CHECK(shard.weight(kTrunk) == 0.5F);
    CHECK(shard.shard().store().lent() == 1);
    CHECK(shard.shard().store().spare_bytes() == kLargeBytes);
}

TEST_CASE("a lent buffer comes back when it is returned, and is used again") {
    OneShard shard(kLargeBlock);
    shard.initialise();
    for (std::uint64_t step = 1; step <= 20; ++step) {
        step_of_worker(shard, step);
        CHECK(shard.shard().store().lent() == 1);
        shard.world().sent.clear();
        shard.world().give(BuffersReturned{});
        CHECK(shard.shard().store().lent() == 0);
        CHECK(shard.shard().store().spare_bytes() == kLargeBytes);
    }
    CHECK(shard.version(kTrunk) == 20);
}

TEST_CASE("a block nobody shares is updated in place") {
    OneShard shard(kLargeBlock);
    shard.initialise();
    const std::byte* const where = shard.block(kTrunk).weights->data();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(shard.block(kTrunk).weights->data() == where);
    CHECK(shard.shard().store().spare_bytes() == 0);
}

TEST_CASE("a push that finds no spare waits, and is applied when buffers return") {
    OneShard shard(kLargeBlock);
    exhaust(shard);
    CHECK(shard.count<PushReply>() == kSpares);
    CHECK(shard.books().in_flight == 2);  // opened by its pull, waiting
    CHECK(shard.shard().store().spare_bytes() == BlockStore::kSpareBytes);
    shard.world().give(BuffersReturned{});  // nothing came back yet
    CHECK(shard.version(kTrunk) == kSpares);
    shard.world().sent.clear();
    shard.world().give(BuffersReturned{});
    CHECK(shard.version(kTrunk) == kSpares + 1);
    CHECK(shard.last<PushReply>().step == Step{kSpares + 1});
    CHECK(shard.books().in_flight == 0);
    CHECK(shard.shard().store().spare_bytes() <= BlockStore::kSpareBytes);
}

TEST_CASE("nothing overtakes a push that waits, though it could be applied") {
    OneShard shard(kLargeBlock);
    exhaust(shard);
    shard.from(1, shard.push_of(1, {shard.gradient(kHead, 1, {0})}));
    CHECK(shard.version(kHead) == kSpares);
    shard.world().sent.clear();
    shard.world().give(BuffersReturned{});
    const auto replies = shard.world().of<PushReply>();
    REQUIRE(replies.size() == 2);
    CHECK(replies[0].first == node_of(WorkerId{0}));
    CHECK(replies[1].first == node_of(WorkerId{1}));
}

TEST_CASE("a copy of a push that waits is not kept twice") {
    OneShard shard(kLargeBlock);
    exhaust(shard);
    const Push again = shard.push_of(kSpares + 1, {shard.gradient(kTrunk, 0.25F, {kSpares}),
                                                   shard.gradient(kHead, 0.25F, {kSpares})});
    shard.from(0, again);
    shard.from(0, again);
    CHECK(shard.reported("repeated") == 2);
    shard.world().sent.clear();
    shard.world().give(BuffersReturned{});
    CHECK(shard.count<PushReply>() == 1);
    CHECK(shard.version(kTrunk) == kSpares + 1);
}

TEST_CASE("a push that waits past the deadline is retried, and what holds it up is said") {
    OneShard shard(kLargeBlock);
    exhaust(shard);
    REQUIRE(shard.warnings() == 0);
    shard.world().advance(shard.job().reply_deadline);
    REQUIRE(shard.warnings() == 1);
    CHECK(shard.world().logs.back().second.find("10 are held by replies") != std::string::npos);
    shard.world().sent.clear();
    shard.world().advance(shard.job().reply_deadline);  // no BuffersReturned came
    CHECK(shard.version(kTrunk) == kSpares + 1);
    CHECK(shard.warnings() == 1);
    shard.world().advance(5 * shard.job().reply_deadline);
    CHECK(shard.warnings() == 1);
}

TEST_CASE("a push that waits for a worker that dies is not applied") {
    OneShard shard(kLargeBlock);
    exhaust(shard);
    const bool replaced = GENERATE(false, true);
    if (replaced) {
        shard.pull(0, 1, {kHead}, 2);
    } else {
        shard.world().give(PeerDown{node_of(WorkerId{0}), {1}, "gone"});
    }
    shard.world().sent.clear();
    shard.world().give(BuffersReturned{});
    CHECK(shard.version(kTrunk) == kSpares);
    CHECK(shard.count<PushReply>() == 0);
    CHECK(shard.books().lost == 2);
}

TEST_CASE("a push whose step is cancelled while it waits is not applied") {
    OneShard shard(kLargeBlock);
    exhaust(shard);
    shard.from(0, CancelNote{Step{kSpares + 1}, CancelReason::dropped, {}});
    shard.world().sent.clear();
    shard.world().give(BuffersReturned{});
    CHECK(shard.version(kTrunk) == kSpares);
    CHECK(shard.books().cancelled == 2);
    shard.world().receive(kCoordinator, Stop{"done", true});
    CHECK_FALSE(shard.last<Stopped>().failed);
}

TEST_CASE("a checkpoint before the first weights is answered with an error") {
    OneShard shard;
    shard.world().receive(kCoordinator, CheckpointRequest{3, "/checkpoints/3"});
    CHECK(shard.world().stored.empty());
    const auto reply = shard.last<CheckpointReply>();
    CHECK(reply.number == 3);
    CHECK(reply.code == ErrorCode::bad_checkpoint);
    CHECK(reply.error.find("no weights") != std::string::npos);
}

TEST_CASE("a checkpoint shares the bytes, and applies after it change neither weights nor slots") {
    Job job = test::job_of();
    job.rule.momentum = 0.9;
    OneShard shard(40, job);
    shard.initialise();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk), shard.gradient(kHead)}));
    const std::byte* const weights = shard.block(kTrunk).weights->data();
    const std::byte* const slots = shard.block(kTrunk).slots->data();
    shard.world().receive(kCoordinator, CheckpointRequest{1, "/checkpoints/1"});
    REQUIRE(shard.world().stored.size() == 1);
    CHECK(shard.count<CheckpointReply>() == 0);  // not before it is on disk
    const std::vector<Payload>& pieces = shard.world().stored[0].pieces;
    const auto shares = [&](const std::byte* where) {
        return std::any_of(pieces.begin(), pieces.end(),
                           [&](const Payload& piece) { return piece.bytes.data() == where; });
    };
    CHECK(shares(weights));
    CHECK(shares(slots));
    const std::string before = file_of(shard.world().stored[0]);

    for (std::uint64_t step = 2; step <= 4; ++step) {
        shard.from(0, shard.push_of(step, {shard.gradient(kTrunk, 1, {step - 1})}));
    }
    CHECK(shard.version(kTrunk) == 4);
    CHECK(shard.block(kTrunk).weights->data() != weights);
    CHECK(shard.block(kTrunk).slots->data() != slots);
    CHECK(file_of(shard.world().stored[0]) == before);
    // Momentum went on from the shared state: v₁ = 1, v₂ = 1.9, v₃ = 2.71, v₄ = 3.439.
    CHECK(shard.weight(kTrunk) == Approx(1 - 0.5 * (1 + 1.9 + 2.71 + 3.439)));

    shard.world().stored[0].pieces.clear();
    shard.world().give(Stored{{1}, {}});
    CHECK(shard.last<CheckpointReply>().error.empty());
    CHECK(shard.last<CheckpointReply>().file.find("/checkpoints/1/") == 0);
    CHECK(shard.shard().store().lent() == 0);
}

TEST_CASE("a checkpoint that could not be written is answered with why, the shard goes on") {
    OneShard shard;
    shard.initialise();
    shard.world().receive(kCoordinator, CheckpointRequest{1, "/checkpoints/1"});
    shard.world().give(Stored{{1}, fail(ErrorCode::io, "disk full")});
    CHECK(shard.last<CheckpointReply>().code == ErrorCode::io);
    CHECK(shard.last<CheckpointReply>().error == "disk full");
    CHECK_FALSE(shard.world().finished.has_value());
}

TEST_CASE("a ledger that could not be written ends the shard") {
    OneShard shard;
    shard.initialise();
    shard.world().give(Stored{{0}, fail(ErrorCode::io, "disk full")});
    CHECK(shard.last<Stopped>().failed);
    CHECK(shard.last<Stopped>().error == "disk full");
    REQUIRE(shard.world().finished.has_value());
    CHECK(shard.world().finished->failed);
}

}  // namespace detente
