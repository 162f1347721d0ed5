#include "worker/shard_client.h"

#include <catch2/catch.hpp>

#include "tests/recorded_effects.h"

namespace detente {
namespace {

constexpr std::uint64_t kMiB = 1U << 20U;
const Nanos kDeadline = std::chrono::seconds(2);

struct NoNode final : Node {
    void on(Event&& /*event*/, Time /*now*/, Effects& /*effects*/) override {}
};

// A client of the only shard: `blocks` blocks of 1 MiB, and credit for that many bytes.
struct Talk {
    explicit Talk(std::int64_t blocks = 4, std::uint64_t credit_bytes = 2 * kMiB)
        : job(job_of(credit_bytes)),
          plan(plan_with(blocks, job)),
          client(kLeadShard, plan, job),
          effects(node) {}

    static Job job_of(std::uint64_t credit_bytes) {
        Job job;
        job.block_bytes = kMiB;
        job.message_bytes = kMiB;
        job.credit_bytes = credit_bytes;
        job.reply_deadline = kDeadline;
        return job;
    }
    static Plan plan_with(std::int64_t blocks, const Job& job) {
        ModelDescription model;
        model.model = "blocks";
        model.tasks = {"a"};
        model.tensors = {{"w", {blocks * static_cast<std::int64_t>(kMiB) / 4}, TaskSet{1}}};
        auto plan = make_plan(model, job);
        REQUIRE(plan.has_value());
        return *plan;
    }
    void push(std::uint64_t step, std::uint32_t part, Step opens = {}) {
        Push push;
        push.step = {step};
        push.part = {part};
        push.opens = opens;
        const auto buffer = std::make_shared<AlignedBuffer>(kMiB);
        push.blocks = {{BlockId{part}, TaskSet{1}, {1}, {}, payload_of(buffer), {}}};
        client.push(std::move(push), effects.now, effects);
    }
    static PushReply answer(std::uint64_t step, std::uint32_t part) {
        PushReply reply;
        reply.step = {step};
        reply.part = {part};
        reply.verdicts.resize(1);
        reply.verdicts[0].block = BlockId{part};
        return reply;
    }
    bool answered(const PushReply& reply) {
        return client.on(reply, effects.now, effects).has_value();
    }
    void pull(std::uint64_t step) {
        client.pull({step}, client.all_blocks(), effects.now, effects);
    }
    PullReply weights(std::uint64_t step, std::uint32_t request, std::uint32_t part = 0,
                      std::uint32_t parts = 1) const {
        PullReply reply;
        reply.step = {step};
        reply.request = request;
        reply.part = {part};
        reply.parts = parts;
        reply.blocks = {{BlockId{part}, {1}, {}, {}, {}}};
        return reply;
    }
    bool arrived(PullReply reply) {
        return client.on(std::move(reply), effects.now, effects).has_value();
    }
    Result<void> later(Nanos duration) {
        effects.now += duration;
        return client.send_overdue_again(effects.now, effects);
    }
    template <class T>
    std::size_t sent() const {
        return effects.of<T>().size();
    }

    Job job;
    Plan plan;
    ShardClient client;
    NoNode node;
    test::RecordedEffects effects;
};

}  // namespace

TEST_CASE("pushes travel within the credit, the rest as answers come") {
    Talk talk;
    for (std::uint32_t part = 0; part < 4; ++part) talk.push(1, part);
    CHECK(talk.sent<Push>() == 2);
    CHECK(talk.answered(Talk::answer(1, 1)));
    CHECK(talk.sent<Push>() == 3);
    CHECK(talk.answered(Talk::answer(1, 0)));
    CHECK(talk.answered(Talk::answer(1, 2)));
    CHECK(talk.answered(Talk::answer(1, 3)));
    CHECK(talk.client.idle());
}

TEST_CASE("an answer says when it was asked for, and whether the way there and back was straight") {
    Talk talk;
    const auto at_ms = [](int ms) { return Time(std::chrono::milliseconds(ms)); };
    const auto answer = [&](int ms, Step opened = {}) {
        talk.effects.now = at_ms(ms);
        PushReply reply = Talk::answer(1, 0);
        if (opened.value != 0) {
            reply.opened = opened;
            reply.blocks = {{BlockId{0}, {1}, {}, {}, {}}};
        }
        return talk.client.on(reply, talk.effects.now, talk.effects);
    };
    talk.effects.now = at_ms(10);
    talk.push(1, 0);
    auto answered = answer(14);
    REQUIRE(answered.has_value());
    CHECK(answered->asked == Asked::push);
    CHECK(answered->bytes == kMiB);
    CHECK(answered->sent == at_ms(10));
    CHECK(answered->straight);
    CHECK_FALSE(answer(15).has_value());
    // With the weights that come back.
    talk.push(1, 0, Step{2});
    answered = answer(20, Step{2});
    REQUIRE(answered.has_value());
    CHECK(answered->bytes == 2 * kMiB);
    // A Wait answers the request, which is open anew.
    talk.push(1, 0);
    talk.effects.now = at_ms(23);
    answered =
        talk.client.on(Wait{Step{1}, Part{0}, 0, WaitFor::verdict}, talk.effects.now, talk.effects);
    REQUIRE(answered.has_value());
    CHECK(answered->sent == at_ms(20));
    CHECK(answered->straight);
    CHECK(answered->bytes == kMiB);
    answered = answer(40);
    REQUIRE(answered.has_value());
    CHECK(answered->sent == at_ms(23));
    CHECK_FALSE(answered->straight);
    // Sent again: nobody knows which one was answered.
    talk.push(1, 0);
    talk.effects.now = at_ms(40);
    REQUIRE(talk.later(kDeadline).has_value());
    talk.effects.now += std::chrono::milliseconds(1);
    answered = talk.client.on(Talk::answer(1, 0), talk.effects.now, talk.effects);
    REQUIRE(answered.has_value());
    CHECK(answered->sent == at_ms(40));
    CHECK_FALSE(answered->straight);
}

TEST_CASE("a pull is answered when its last block is here") {
    Talk talk(2);
    talk.pull(1);
    const Time asked = talk.effects.now;
    talk.effects.now += std::chrono::milliseconds(3);
    auto first = talk.client.on(talk.weights(1, 1, 0, 2), talk.effects.now, talk.effects);
    REQUIRE(first.has_value());
    CHECK_FALSE(first->answered.has_value());
    talk.effects.now += std::chrono::milliseconds(3);
    auto last = talk.client.on(talk.weights(1, 1, 1, 2), talk.effects.now, talk.effects);
    REQUIRE(last.has_value());
    REQUIRE(last->answered.has_value());
    CHECK(last->answered->asked == Asked::pull);
    CHECK(last->answered->bytes == 2 * kMiB);
    CHECK(last->answered->sent == asked);
    CHECK(last->answered->straight);
}

TEST_CASE("every message says the worker's tasks, the shard's epoch and its deadline") {
    Talk talk;
    talk.client.speaks_for(TaskSet{2});
    Envelope heard;
    heard.shard_epoch = {7};
    talk.client.heard_from(heard);
    talk.push(1, 0);
    talk.client.cancel({2}, CancelReason::recompute, talk.effects.now, talk.effects);
    REQUIRE(talk.effects.envelopes.size() == 2);
    for (const Envelope& envelope : talk.effects.envelopes) {
        CHECK(envelope.to == node_of(kLeadShard));
        CHECK(envelope.tasks == TaskSet{2});
        CHECK(envelope.shard_epoch == Epoch{7});
        CHECK(envelope.deadline == kDeadline);
    }
}

TEST_CASE("one part may always travel, however small the credit") {
    Talk talk(4, 1);
    talk.push(1, 0);
    talk.push(1, 1);
    CHECK(talk.sent<Push>() == 1);
    talk.answered(Talk::answer(1, 0));
    CHECK(talk.sent<Push>() == 2);
}

TEST_CASE("the credit a pull reply names holds from then on") {
    Talk talk(4, 1);
    talk.pull(1);
    PullReply reply = talk.weights(1, 1);
    reply.credit_bytes = 3 * kMiB;
    CHECK(talk.arrived(std::move(reply)));
    for (std::uint32_t part = 0; part < 4; ++part) talk.push(1, part);
    CHECK(talk.sent<Push>() == 3);
}

TEST_CASE("first weights go in parts within the credit") {
    Talk talk;
    std::vector<WeightBlock> blocks;
    for (std::uint64_t i = 0; i < 4; ++i) {
        blocks.push_back({{i}, {}, {}, payload_of(std::make_shared<AlignedBuffer>(kMiB)), {}});
    }
    talk.client.initialise(std::move(blocks), talk.effects.now, talk.effects);
    CHECK(talk.sent<Initialise>() == 2);
    for (std::uint32_t part = 0; part < 4; ++part) {
        CHECK_FALSE(talk.client.idle());
        talk.client.on(InitialiseReply{{part}}, talk.effects.now, talk.effects);
    }
    CHECK(talk.sent<Initialise>() == 4);
    CHECK(talk.effects.of<Initialise>().back().second.parts == 4);
    CHECK(talk.client.idle());
}

TEST_CASE("one pull is outstanding at a time, of it at most 8 MiB, and only the first opens") {
    Talk talk(20);
    talk.pull(1);
    talk.pull(2);
    const auto asked = [&](std::uint32_t request) {
        return talk.effects.of<PullRequest>().at(request - 1).second;
    };
    for (std::uint32_t request = 1; request <= 10; ++request) {
        // This piece and the next of the same pull are asked for, no more.
        REQUIRE(talk.sent<PullRequest>() == request + (request % 5 == 0 ? 0 : 1));
        CHECK(asked(request).request == request);
        CHECK(asked(request).blocks.size() == 4);
        CHECK(asked(request).opens == (request % 5 == 1));
        CHECK(asked(request).step == Step{request <= 5 ? 1U : 2U});
        PullReply reply = talk.weights(asked(request).step.value, request);
        reply.blocks.clear();
        for (const BlockId block : asked(request).blocks) {
            reply.blocks.push_back({block, {1}, {}, {}, {}});
        }
        CHECK(talk.arrived(std::move(reply)));
    }
    CHECK(talk.client.idle());
}

TEST_CASE("what is overdue is sent again as it was, every deadline") {
    Talk talk;
    talk.push(1, 0);
    talk.pull(2);
    REQUIRE(talk.later(kDeadline - Nanos{1}).has_value());
    CHECK(talk.effects.sent.size() == 2);
    REQUIRE(talk.later(Nanos{1}).has_value());
    CHECK(talk.sent<Push>() == 2);
    CHECK(talk.sent<PullRequest>() == 2);
    CHECK(talk.effects.of<PullRequest>()[1].second.request == 1);
    CHECK(talk.client.sent_again() == 2);
    REQUIRE(talk.later(kDeadline / 2).has_value());
    CHECK(talk.client.sent_again() == 2);
}

TEST_CASE("a client that is not answered gives up and names what it waits for") {
    Talk talk;
    talk.push(7, 3);
    CHECK(talk.client.waiting_for() == "push reply of shard:0 (step 7, part 3)");
    for (int i = 0; i < ShardClient::kGiveUpAfter; ++i) REQUIRE(talk.later(kDeadline).has_value());
    const auto given_up = talk.later(kDeadline);
    REQUIRE_FALSE(given_up.has_value());
    CHECK(given_up.error().code == ErrorCode::timed_out);
    CHECK(given_up.error().text.find("push reply of shard:0 (step 7, part 3) for 62 s") !=
          std::string::npos);
}

TEST_CASE("what was refused as altered is sent once at once, then only when overdue") {
    Talk talk;
    talk.push(1, 0);
    const Refusal refusal{ErrorCode::bad_checksum, "altered", {1}, {0}, 0};
    for (int i = 0; i < 5; ++i) REQUIRE(talk.client.on(refusal, talk.effects).has_value());
    CHECK(talk.sent<Push>() == 2);
    for (int i = 0; i < ShardClient::kGiveUpAfter; ++i) {
        REQUIRE(talk.later(kDeadline).has_value());
        REQUIRE(talk.client.on(refusal, talk.effects).has_value());
    }
    CHECK(talk.sent<Push>() == 2U + ShardClient::kGiveUpAfter);
    const auto given_up = talk.later(kDeadline);
    REQUIRE_FALSE(given_up.has_value());
    CHECK(given_up.error().text.find("it was refused: altered") != std::string::npos);
}

TEST_CASE("any other refusal ends the conversation with its reason") {
    Talk talk;
    talk.push(1, 0);
    const auto ended =
        talk.client.on(Refusal{ErrorCode::not_owner, "not yours", {1}, {0}, 0}, talk.effects);
    REQUIRE_FALSE(ended.has_value());
    CHECK(ended.error().code == ErrorCode::not_owner);
    CHECK(ended.error().text.find("shard:0 refused step 1: not yours") != std::string::npos);
}

TEST_CASE("a push reply to something else, or the second one, is as if lost") {
    Talk talk;
    talk.push(1, 0, Step{2});
    PushReply good = Talk::answer(1, 0);
    good.opened = Step{2};
    good.blocks = {{BlockId{0}, {1}, {1}, {}, {}}};
    PushReply other = good;
    SECTION("another step") { other.step = Step{2}; }
    SECTION("another part") { other.part = Part{1}; }
    SECTION("another block's verdict") { other.verdicts[0].block = BlockId{1}; }
    SECTION("no verdict") { other.verdicts.clear(); }
    SECTION("a verdict too many") { other.verdicts.push_back(other.verdicts[0]); }
    SECTION("another step opened") { other.opened = Step{3}; }
    SECTION("no weights") { other.blocks.clear(); }
    SECTION("another block's weights") { other.blocks[0].block = BlockId{1}; }
    CHECK_FALSE(talk.answered(other));
    CHECK_FALSE(talk.client.idle());
    CHECK(talk.answered(good));
    CHECK(talk.client.idle());
    CHECK_FALSE(talk.answered(good));
}

TEST_CASE("a pull reply to something else, or a part that came before, is as if lost") {
    Talk talk;
    talk.pull(1);
    CHECK_FALSE(talk.arrived(talk.weights(2, 1)));        // another step
    CHECK_FALSE(talk.arrived(talk.weights(1, 2)));        // another request
    CHECK_FALSE(talk.arrived(talk.weights(1, 1, 2, 2)));  // part 2 of 2, counted from 0
    PullReply foreign = talk.weights(1, 1);
    foreign.blocks[0].block = BlockId{99};
    CHECK_FALSE(talk.arrived(foreign));
    CHECK(talk.arrived(talk.weights(1, 1, 0, 4)));
    CHECK_FALSE(talk.arrived(talk.weights(1, 1, 0, 4)));
    for (std::uint32_t part = 1; part < 4; ++part) {
        CHECK_FALSE(talk.client.idle());
        CHECK(talk.arrived(talk.weights(1, 1, part, 4)));
    }
    CHECK(talk.client.idle());
}

TEST_CASE("a pull reply with fewer blocks than asked is not whole: the rest is asked for again") {
    Talk talk;
    talk.pull(1);
    CHECK(talk.arrived(talk.weights(1, 1)));  // part 0 of 1, with one block of four
    CHECK_FALSE(talk.client.idle());
    CHECK(talk.later(kDeadline).has_value());
    REQUIRE(talk.sent<PullRequest>() == 2);
    PullReply whole = talk.weights(1, 1);
    for (std::uint64_t i = 1; i < 4; ++i) whole.blocks.push_back({BlockId{i}, {1}, {}, {}, {}});
    const auto taken = talk.client.on(std::move(whole), talk.effects.now, talk.effects);
    REQUIRE(taken.has_value());
    CHECK(taken->blocks.size() == 3);  // the first came before, maybe at another version
    CHECK(talk.client.idle());
}

TEST_CASE("a pull reply without blocks is as if lost") {
    Talk talk;
    talk.pull(1);
    PullReply empty = talk.weights(1, 1);
    empty.blocks.clear();
    CHECK_FALSE(talk.arrived(empty));
    CHECK_FALSE(talk.client.idle());
}

TEST_CASE("when a pull is dropped the next one in line is sent") {
    Talk talk;
    talk.pull(1);
    talk.pull(2);
    REQUIRE(talk.sent<PullRequest>() == 1);
    talk.client.drop_pull({1}, talk.effects.now, talk.effects);
    REQUIRE(talk.sent<PullRequest>() == 2);
    CHECK(talk.effects.of<PullRequest>().back().second.step == Step{2});
}

TEST_CASE("answers nobody waits for are ignored") {
    Talk talk;
    CHECK_FALSE(talk.client.on(CancelReply{{1}}));
    talk.client.on(FarewellReply{});
    talk.client.on(InitialiseReply{{0}}, talk.effects.now, talk.effects);
    CHECK(talk.client.on(Refusal{ErrorCode::bad_checksum, "", {9}, {0}, 0}, talk.effects)
              .has_value());
    CHECK(talk.effects.sent.empty());
    talk.client.cancel({1}, CancelReason::dropped, talk.effects.now, talk.effects);
    CHECK(talk.client.on(CancelReply{{1}}));
    CHECK_FALSE(talk.client.on(CancelReply{{1}}));
}

TEST_CASE("acknowledged is the last step up to which every step is settled") {
    Talk talk;
    talk.client.settled({2});
    talk.client.settled({3});
    CHECK(talk.client.acknowledged() == Step{0});
    talk.client.settled({1});
    CHECK(talk.client.acknowledged() == Step{3});
    talk.client.settled({5});
    CHECK(talk.client.acknowledged() == Step{3});
    talk.client.settled({2});  // again: a verdict and a cancel reply of one step
    talk.client.settled({4});
    CHECK(talk.client.acknowledged() == Step{5});
    talk.push(6, 0);
    CHECK(talk.effects.of<Push>().back().second.acknowledged == Step{5});
}

TEST_CASE("a staged push frees its credit, and is asked after without its bytes") {
    Talk talk(4, kMiB);
    talk.push(1, 0);
    talk.push(1, 1);  // beyond the credit
    REQUIRE(talk.sent<Push>() == 1);
    const Wait staged{Step{1}, Part{0}, 0, WaitFor::verdict};
    talk.client.on(staged, talk.effects.now, talk.effects);
    CHECK(talk.sent<Push>() == 2);
    talk.client.on(staged, talk.effects.now,
                   talk.effects);  // doubled: the credit is not freed twice
    talk.push(1, 2);
    CHECK(talk.sent<Push>() == 2);

    talk.effects.now += kDeadline;
    REQUIRE(talk.client.send_overdue_again(talk.effects.now, talk.effects).has_value());
    const auto again = talk.effects.of<Push>();
    REQUIRE(again.size() == 4);
    CHECK(again[2].second.part == Part{0});
    CHECK(again[2].second.blocks.empty());
    CHECK(again[3].second.blocks.size() == 1);  // not staged yet, as far as is known

    talk.client.on(Wait{Step{1}, Part{0}, 0, WaitFor::push_again}, talk.effects.now, talk.effects);
    CHECK(talk.effects.of<Push>().back().second.blocks.size() == 1);
    CHECK(talk.answered(Talk::answer(1, 0)));
}

TEST_CASE("a request that a shard says it has is never given up") {
    Talk talk;
    talk.push(1, 0);
    for (int i = 0; i < 3 * ShardClient::kGiveUpAfter; ++i) {
        talk.effects.now += kDeadline;
        REQUIRE(talk.client.send_overdue_again(talk.effects.now, talk.effects).has_value());
        talk.client.on(Wait{Step{1}, Part{0}, 0, WaitFor::release}, talk.effects.now, talk.effects);
    }
}

}  // namespace detente
