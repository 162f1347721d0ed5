// What a shard tells workers besides verdicts, and what it keeps when they come, go and die.
#include <catch2/catch.hpp>

#include "tests/ps/one_shard.h"

namespace detente {
namespace {

using test::kEmbedding;
using test::kHead;
using test::kTrunk;
using test::OneShard;

constexpr std::uint64_t kMiB = 1U << 20U;

// Three tensors of 3 MiB each, in blocks of 1 MiB.
OneShard shard_of_nine_mib(std::uint64_t message_bytes) {
    ModelDescription model;
    model.model = "nine";
    model.tasks = {"a"};
    model.training_samples = 640;
    for (const char* name : {"one", "two", "three"}) {
        model.tensors.push_back({name, {3 * static_cast<std::int64_t>(kMiB) / 4}, TaskSet{1}});
    }
    Job job = test::job_of();
    job.block_bytes = kMiB;
    job.message_bytes = message_bytes;
    OneShard shard(model, job, kLeadShard);
    shard.initialise();
    return shard;
}

std::vector<BlockId> first_blocks(std::uint64_t count) {
    std::vector<BlockId> ids;
    for (std::uint64_t i = 0; i < count; ++i) ids.push_back(BlockId{i});
    return ids;
}

}  // namespace

TEST_CASE("a pull comes back in parts of whole blocks, each within message_bytes") {
    OneShard shard = shard_of_nine_mib(2 * kMiB);
    shard.pull(0, 1, first_blocks(7));
    const auto replies = shard.world().of<PullReply>();
    REQUIRE(replies.size() == 4);
    std::vector<BlockId> seen;
    for (std::size_t i = 0; i < replies.size(); ++i) {
        const PullReply& reply = replies[i].second;
        CHECK(reply.step == Step{1});
        CHECK(reply.request == 1);
        CHECK(reply.part == Part{static_cast<std::uint32_t>(i)});
        CHECK(reply.parts == 4);
        CHECK(reply.credit_bytes == shard.job().credit_bytes / 3);
        CHECK(payload_bytes(reply) <= 2 * kMiB);
        for (const WeightBlock& block : reply.blocks) {
            seen.push_back(block.block);
            CHECK(test::value_of(block.weights) == 1.0F);
        }
    }
    CHECK(seen == first_blocks(7));
    CHECK(shard.world().records<PullRecord>().size() == 1);
}

TEST_CASE("a block larger than message_bytes still travels, alone") {
    OneShard shard = shard_of_nine_mib(kMiB / 2);
    shard.pull(0, 1, first_blocks(2));
    const auto replies = shard.world().of<PullReply>();
    REQUIRE(replies.size() == 2);
    for (const auto& [to, reply] : replies) CHECK(payload_bytes(reply) == kMiB);
}

TEST_CASE("a pull of more than 8 MiB is refused, one of exactly 8 MiB is not") {
    OneShard shard = shard_of_nine_mib(4 * kMiB);
    shard.pull(0, 1, first_blocks(9));
    CHECK(shard.last<Refusal>().code == ErrorCode::over_limit);
    CHECK(shard.last<Refusal>().request == 1);
    CHECK(shard.count<PullReply>() == 0);
    CHECK(shard.books().computed == 0);
    shard.pull(0, 2, first_blocks(8));
    CHECK(shard.count<PullReply>() == 2);
    CHECK(shard.count<Refusal>() == 1);
}

TEST_CASE("only the first request of a step opens its books, and only once") {
    OneShard shard;
    shard.initialise();
    PullRequest request;
    request.step = Step{1};
    request.opens = false;
    request.blocks = {kEmbedding};
    shard.from(0, request);
    CHECK(shard.books().computed == 0);
    shard.pull(0, 1);
    shard.pull(0, 1);
    CHECK(shard.books().computed == 2);  // what can be pushed: trunk and head
    CHECK(shard.count<PullReply>() == 3);
}

TEST_CASE("a newer incarnation takes over: open steps are lost, its predecessor is not heard") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1);
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    shard.pull(0, 2);
    shard.pull(0, 1, {kTrunk}, 2);   // steps of the new process start at 1 again
    CHECK(shard.books().lost == 3);  // the head of step 1, both blocks of step 2
    CHECK(shard.books().in_flight == 2);
    const auto closed = shard.world().records<ClosedRecord>();
    REQUIRE(closed.size() == 2);
    CHECK(closed[0].lost);
    CHECK(closed[0].incarnation == Incarnation{1});
    CHECK(closed[0].blocks + closed[1].blocks == 3);
    CHECK_FALSE(closed[0].reason.empty());

    // Not answered: the no would reach the new process, which speaks for that worker now.
    const std::size_t answers = shard.world().of<Refusal>().size();
    shard.from(0, shard.push_of(2, {shard.gradient(kTrunk)}), 1);
    CHECK(shard.world().of<Refusal>().size() == answers);
    CHECK(shard.version(kTrunk) == 1);
    // The same step and part of the new process is a push of its own.
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk, 1, {1})}), 2);
    CHECK(shard.version(kTrunk) == 2);
    CHECK(shard.books().applied == 2);
}

TEST_CASE("a lost worker's books are closed as lost, with the reason, and it is not heard again") {
    OneShard shard;
    shard.initialise();
    shard.pull(1, 1);
    const NodeId one = node_of(WorkerId{1});
    shard.world().give(PeerDown{one, {1}, "silent for 5 s"});
    CHECK(shard.books().lost == 2);
    CHECK(shard.books().in_flight == 0);
    const auto closed = shard.world().records<ClosedRecord>();
    REQUIRE(closed.size() == 1);
    CHECK(closed[0].worker == WorkerId{1});
    CHECK(closed[0].lost);
    CHECK(closed[0].reason == "silent for 5 s");
    CHECK(shard.world().records<ControlRecord>().back().what == "worker:1 lost: silent for 5 s");

    shard.from(1, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(shard.last<Refusal>().code == ErrorCode::peer_lost);
    CHECK(shard.version(kTrunk) == 0);
    // Its successor is welcome; late news of the first is not about it.
    shard.pull(1, 1, {kTrunk}, 2);
    shard.world().give(PeerDown{one, {1}, "silent for 5 s"});
    CHECK(shard.books().in_flight == 2);
    CHECK(shard.books().lost == 2);
}

TEST_CASE("a lost worker's batches are leased to the next who asks") {
    OneShard shard;
    shard.initialise();
    shard.from(0, LeaseRequest{1, {}, true});
    const BatchRange first = shard.last<LeaseReply>().granted.at(0);
    shard.world().give(PeerDown{node_of(WorkerId{0}), {1}, "gone"});
    shard.from(1, LeaseRequest{1, {}, true});
    CHECK(shard.last<LeaseReply>().granted == std::vector<BatchRange>{first});
    const auto records = shard.world().records<LeaseRecord>();
    REQUIRE(records.size() == 3);
    CHECK(records[0].granted);
    CHECK_FALSE(records[1].granted);
    CHECK(records[1].worker == WorkerId{0});
    CHECK(records[2].range == first);
}

TEST_CASE("a lease request that has to wait is told so when it is asked again") {
    OneShard shard;
    shard.initialise();
    const Leases& leases = shard.shard().leases();
    for (std::uint32_t request = 1; leases.leased() < leases.total(); ++request) {
        REQUIRE(request <= leases.total());
        shard.from(0, LeaseRequest{request, {}, true});
    }
    shard.from(1, LeaseRequest{1, {}, true});
    CHECK(shard.count<Wait>() == 0);  // a batch may come back any moment
    shard.from(1, LeaseRequest{1, {}, true});
    REQUIRE(shard.count<Wait>() == 1);
    CHECK(shard.world().of<Wait>().back().first == node_of(WorkerId{1}));
    CHECK(shard.last<Wait>().request == 1);
    CHECK(shard.last<Wait>().step.value == 0);
    shard.world().give(PeerDown{node_of(WorkerId{0}), {1}, "gone"});
    CHECK(shard.world().of<LeaseReply>().back().first == node_of(WorkerId{1}));
    CHECK_FALSE(shard.last<LeaseReply>().granted.empty());
    shard.from(1, LeaseRequest{1, {}, true});  // its answer was lost
    CHECK(shard.count<Wait>() == 1);
}

TEST_CASE("batches are leased by the lead shard only") {
    Job job = test::job_of();
    job.servers = 2;
    OneShard shard(40, job, ShardId{1});
    shard.from(0, LeaseRequest{4, {}, true});
    CHECK(shard.last<Refusal>().code == ErrorCode::bad_message);
    CHECK(shard.last<Refusal>().request == 4);
    CHECK(shard.count<LeaseReply>() == 0);
}

TEST_CASE("a farewell cancels what is open, and a late lease request is not granted") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1);
    shard.from(0, LeaseRequest{1, {}, true});
    REQUIRE(shard.count<LeaseReply>() == 1);
    shard.from(0, Farewell{});
    CHECK(shard.count<FarewellReply>() == 1);
    CHECK(shard.books().cancelled == 2);
    CHECK(shard.books().in_flight == 0);
    shard.from(0, LeaseRequest{1, {}, true});
    shard.from(0, LeaseRequest{2, {}, true});
    CHECK(shard.count<LeaseReply>() == 1);
    CHECK(shard.shard().leases().leased() == shard.shard().leases().returned());
    // Late pulls and pushes open nothing either.
    shard.pull(0, 2);
    shard.from(0, shard.push_of(2, {shard.gradient(kTrunk)}));
    CHECK(shard.count<PullReply>() == 1);
    CHECK(shard.books().computed == 2);
    CHECK(shard.version(kTrunk) == 0);
    shard.from(0, Farewell{});  // its reply was lost
    CHECK(shard.count<FarewellReply>() == 2);
    CHECK(shard.books().cancelled == 2);
}

TEST_CASE("a late message of a worker that said farewell does not make it a member again") {
    Job job = test::job_of();
    job.policy.name = "inverse";
    job.policy.parameters = {};
    OneShard shard(40, job);
    shard.initialise();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    const std::uint64_t members = shard.shard().members();
    shard.pull(1, 1);
    CHECK(shard.shard().members() == members + 1);
    shard.from(1, Farewell{Step{1}});
    CHECK(shard.shard().members() == members);
    shard.pull(1, 1);  // late doubles
    shard.from(1, Farewell{Step{1}});
    CHECK(shard.shard().members() == members);
    CHECK(shard.count<FarewellReply>() == 2);  // the second is answered all the same
    shard.pull(1, 1, {kTrunk}, 2);             // its successor counts
    CHECK(shard.shard().members() == members + 1);
}

TEST_CASE("a note that cancels a step closes it once and is answered each time") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1);
    shard.from(0, CancelNote{Step{1}, CancelReason::dropped, {}});
    shard.from(0, CancelNote{Step{1}, CancelReason::dropped, {}});
    CHECK(shard.count<CancelReply>() == 2);
    CHECK(shard.books().cancelled == 2);
    const auto closed = shard.world().records<ClosedRecord>();
    REQUIRE(closed.size() == 1);
    CHECK_FALSE(closed[0].lost);
    CHECK(closed[0].reason == "dropped");
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));  // overtaken
    CHECK(shard.version(kTrunk) == 0);
    CHECK(shard.count<PushReply>() == 0);
}

TEST_CASE("a cancel note that overtakes its pull leaves nothing open") {
    OneShard shard;
    shard.initialise();
    shard.from(0, CancelNote{Step{1}, CancelReason::dropped, {}});
    CHECK(shard.last<CancelReply>().step == Step{1});
    shard.pull(0, 1);
    CHECK(shard.books().computed == 0);
    CHECK(shard.books().in_flight == 0);
    CHECK(shard.shard().books().cancelled == 0);
}

TEST_CASE("first weights are taken once, sent again they are answered and change nothing") {
    OneShard shard;
    shard.initialise();
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    Initialise again;
    again.part = Part{5};
    again.blocks = {{kTrunk, {}, {}, test::floats(40, 9), {}}};
    shard.from(0, again);
    CHECK(shard.last<InitialiseReply>().part == Part{5});
    CHECK(shard.weight(kTrunk) == 0.5F);
    CHECK(shard.version(kTrunk) == 1);
}

TEST_CASE("first weights may come in parts and doubled, Ready is said once, when all are there") {
    OneShard shard;
    shard.world().receive(kCoordinator, Welcome{});
    const auto part = [&](BlockId id, float value) {
        Initialise first;
        first.blocks = {{id, {}, {}, test::floats(shard.plan().block(id).elements, value), {}}};
        shard.from(0, first);
    };
    part(kTrunk, 1);
    part(kTrunk, 2);
    part(kHead, 3);
    CHECK(shard.count<Ready>() == 0);
    part(kEmbedding, 4);
    CHECK(shard.count<Ready>() == 1);
    part(kEmbedding, 5);
    CHECK(shard.count<Ready>() == 1);
    CHECK(shard.count<InitialiseReply>() == 5);
    CHECK(shard.weight(kTrunk) == 1.0F);
    CHECK(shard.weight(kEmbedding) == 4.0F);
}

TEST_CASE("first weights that cannot be taken are refused by name") {
    OneShard shard;
    Initialise first;
    first.part = Part{1};
    first.blocks = {{kTrunk, {}, {}, test::floats(40, 1), {}}};
    ErrorCode expected = ErrorCode::internal;
    SECTION("of another shard") {
        first.blocks[0].block = BlockId{77};
        expected = ErrorCode::unknown_block;
    }
    SECTION("altered on their way") {
        first.blocks[0].checksum = 1;
        expected = ErrorCode::bad_checksum;
    }
    SECTION("not finite") {
        first.blocks[0].weights = test::floats(40, std::numeric_limits<float>::infinity());
        expected = ErrorCode::not_finite;
    }
    SECTION("of another length") {
        first.blocks[0].weights = test::floats(41, 1);
        expected = ErrorCode::bad_length;
    }
    shard.from(0, first);
    CHECK(shard.last<Refusal>().code == expected);
    CHECK(shard.last<Refusal>().part == Part{1});
    CHECK(shard.count<InitialiseReply>() == 0);
    CHECK(shard.block(kTrunk).weights == nullptr);
}

TEST_CASE("a refusal is not answered, and what a shard does not take is") {
    OneShard shard;
    shard.initialise();
    shard.from(0, Refusal{ErrorCode::bad_message, "no", {}, {}, 0});
    CHECK(shard.world().sent.empty());
    shard.from(0, Ready{});
    CHECK(shard.last<Refusal>().code == ErrorCode::bad_message);
    CHECK(shard.last<Refusal>().text.find("ready") != std::string::npos);
}

TEST_CASE("a stop with updates in flight fails and says how many") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1);
    shard.world().receive(kCoordinator, Stop{"all workers have left", true});
    const auto last = shard.last<Stopped>();
    CHECK(last.failed);
    CHECK(last.error.find("2 updates of 1 steps") != std::string::npos);
    REQUIRE(shard.world().finished.has_value());
    CHECK(shard.world().finished->failed);
    const std::size_t said = shard.world().sent.size();
    shard.pull(0, 2);
    CHECK(shard.world().sent.size() == said);
}

TEST_CASE("a stop with everything settled, or without draining, ends well") {
    OneShard shard;
    shard.initialise();
    shard.pull(0, 1);
    const bool drain = GENERATE(true, false);
    if (drain) shard.from(0, Farewell{});
    shard.world().receive(kCoordinator, Stop{"done", drain});
    CHECK_FALSE(shard.last<Stopped>().failed);
    REQUIRE(shard.world().finished.has_value());
    CHECK_FALSE(shard.world().finished->failed);
}

}  // namespace detente
