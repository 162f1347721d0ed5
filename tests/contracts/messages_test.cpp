// What every runtime promises of events, effects and messages.
#include <catch2/catch.hpp>
#include <cstring>
#include <map>

#include "tests/contracts/runtime_under_test.h"
#include "tests/contracts/scripted_node.h"

namespace detente::testing {
namespace {

constexpr Nanos kDeadline = std::chrono::seconds(60);
constexpr NodeId kShard = node_of(ShardId{0});
constexpr NodeId kWorker = node_of(WorkerId{0});

LedgerEntry noted(std::string what) { return {Time{}, ControlRecord{std::move(what)}}; }
std::string note_of(const LedgerEntry& entry) { return std::get<ControlRecord>(entry.record).what; }

std::shared_ptr<AlignedBuffer> filled_buffer(std::size_t bytes, int value) {
    auto buffer = std::make_shared<AlignedBuffer>(bytes);
    std::memset(buffer->data(), value, bytes);
    return buffer;
}
bool all_bytes_are(std::span<const std::byte> bytes, int value) {
    for (const std::byte byte : bytes) {
        if (byte != static_cast<std::byte>(value)) return false;
    }
    return true;
}
Message weights_of(const std::vector<std::shared_ptr<AlignedBuffer>>& buffers) {
    Initialise body;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        body.blocks.push_back({BlockId{i}, Epoch{1}, Version{1}, payload_of(buffers[i]), {}});
    }
    return {Envelope{}, std::move(body)};
}

}  // namespace

TEST_CASE("runtime: Started is the first event, and comes once") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    std::vector<std::size_t> events;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        events.push_back(event.index());
        if (events.size() == 1) effects.after(Nanos{0}, {});
        if (events.size() == 2) effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(events == std::vector{Event(Started{}).index(), Event(TimerFired{}).index()});
}

TEST_CASE("runtime: effects of one on() are released in the order they were made") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    std::vector<std::string> released_after;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            effects.record(noted("first"));
            effects.after(Nanos{0}, {});
            effects.record(noted("second"));
            return;
        }
        for (const auto& entry : runtime->recorded_by(kShard)) {
            released_after.push_back(note_of(entry));
        }
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(released_after == std::vector<std::string>{"first", "second"});
}

TEST_CASE("runtime: without faults, messages of one pair arrive once each and in order") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    constexpr std::uint64_t kMessages = 500;
    std::vector<std::uint64_t> at_shard;
    std::vector<std::uint64_t> at_worker;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        const std::uint64_t number = number_of(event);
        if (number == 0) return;
        at_shard.push_back(number);
        effects.send(kWorker, numbered(number));
        if (number == kMessages) effects.finish({});
    });
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            for (std::uint64_t i = 1; i <= kMessages; ++i) effects.send(kShard, numbered(i));
        }
        const std::uint64_t number = number_of(event);
        if (number == 0) return;
        at_worker.push_back(number);
        if (number == kMessages) effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    REQUIRE(runtime->run(kDeadline));
    std::vector<std::uint64_t> expected;
    for (std::uint64_t i = 1; i <= kMessages; ++i) expected.push_back(i);
    CHECK(at_shard == expected);
    CHECK(at_worker == expected);
}

TEST_CASE("runtime: the envelope says who sent a message and for whom it is") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    Envelope seen;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (number_of(event) == 0) return;
        seen = std::get<Received>(event).message.envelope;
        effects.finish({});
    });
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (!std::holds_alternative<Started>(event)) return;
        Message message = numbered(7);
        message.envelope.from = node_of(WorkerId{9});  // not the node's to say
        message.envelope.request_class = RequestClass::tune;
        effects.send(kShard, std::move(message));
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(node_of(WorkerId{3}), worker, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(seen.from == node_of(WorkerId{3}));
    CHECK(seen.to == kShard);
    CHECK(seen.incarnation == Incarnation{1});
    CHECK(seen.request_class == RequestClass::tune);
}

TEST_CASE("runtime: an answer in the same event says how long its sender took over the question") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    constexpr Nanos kWork = std::chrono::milliseconds(3);
    constexpr NodeId kOther = node_of(WorkerId{1});
    using ByNumber = std::map<std::uint64_t, Nanos>;
    ByNumber at_shard;
    ByNumber at_worker;
    ByNumber at_other;
    const auto note = [](ByNumber& handled, const Event& event) {
        if (number_of(event) == 0) return;
        handled[number_of(event)] = std::get<Received>(event).message.envelope.handled;
    };
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        note(at_shard, event);
        const bool greeting = number_of(event) == 1 || number_of(event) == 8;
        if (greeting && at_shard.size() == 2) effects.after(Nanos{0}, {1, 0});
        if (number_of(event) == 3) {
            const auto begin = std::chrono::steady_clock::now();
            while (std::chrono::steady_clock::now() - begin < kWork) continue;
            Message answer = numbered(4);
            answer.envelope.handled = std::chrono::hours(1);  // not the node's to say
            effects.send(kWorker, std::move(answer));
            effects.send(kWorker, numbered(5));
            effects.send(kOther, numbered(6));  // has not asked
            effects.after(Nanos{0}, {2, 0});
        }
        const auto* fired = std::get_if<TimerFired>(&event);
        if (fired == nullptr) return;
        effects.send(kWorker, numbered(fired->tag.kind == 1 ? 2 : 7));  // in a later event
        if (fired->tag.kind == 2) effects.finish({});
    });
    Time asked{};
    Nanos round_trip{0};
    ScriptedNode worker([&](Event&& event, Time now, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.send(kShard, numbered(8));
        note(at_worker, event);
        if (number_of(event) == 2) {
            asked = now;
            effects.send(kShard, numbered(3));
        }
        if (number_of(event) == 5) round_trip = now - asked;
        if (number_of(event) == 7) effects.finish({});
    });
    ScriptedNode other([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.send(kShard, numbered(1));
        note(at_other, event);
        if (number_of(event) == 6) effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    runtime->spawn(kOther, other, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(at_shard[1] == Nanos{0});
    CHECK(at_shard[8] == Nanos{0});
    CHECK(at_worker[2] == Nanos{0});
    CHECK(at_worker[7] == Nanos{0});
    CHECK(at_other[6] == Nanos{0});
    REQUIRE(at_worker.size() == 4);
    if (kind.name == simulated().name) {  // a message takes no virtual time, unless asked
        CHECK(at_shard[3] == Nanos{0});
        CHECK(at_worker[4] == Nanos{0});
        CHECK(at_worker[5] == Nanos{0});
        return;
    }
    CHECK(at_shard[3] > Nanos{0});
    CHECK(at_worker[4] >= kWork);
    CHECK(at_worker[5] >= at_worker[4]);
    CHECK(round_trip >= at_worker[5]);
}

TEST_CASE("runtime: what was sent in the last on() is delivered, and no event follows finish") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    bool worker_finished = false;
    int events_after_finish = 0;
    std::vector<std::uint64_t> at_shard;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (number_of(event) == 0) return;
        at_shard.push_back(number_of(event));
        // No answer: libzmq may drop what a peer sent when it is answered after it has left, and a
        // transport may lose messages; the protocol sends again.
        if (at_shard.size() == 3) effects.finish({true, fail(ErrorCode::io, "as told")});
    });
    ScriptedNode worker([&](Event&&, Time, Effects& effects) {
        if (worker_finished) ++events_after_finish;
        worker_finished = true;
        effects.after(Nanos{0}, {});
        for (std::uint64_t i = 1; i <= 3; ++i) effects.send(kShard, numbered(i));
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(at_shard == std::vector<std::uint64_t>{1, 2, 3});
    CHECK(events_after_finish == 0);
    REQUIRE(runtime->outcome_of(kShard).has_value());
    CHECK(runtime->outcome_of(kShard)->failed);
    CHECK(runtime->outcome_of(kShard)->error.text == "as told");
    CHECK_FALSE(runtime->outcome_of(kWorker)->failed);
}

TEST_CASE(
    "runtime: payloads arrive whole, and the sender gets its buffers back though the "
    "receiver keeps what it got") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    constexpr std::size_t kBytes = 1U << 20U;
    std::vector<std::shared_ptr<AlignedBuffer>> buffers{filled_buffer(kBytes, 1),
                                                        filled_buffer(kBytes, 2)};
    std::vector<Payload> kept;
    bool whole = true;
    bool returned_event = false;
    bool answered = false;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (number_of(event) == 1) effects.send(kWorker, weights_of(buffers));
        if (number_of(event) == 2) answered = true;
        if (std::holds_alternative<BuffersReturned>(event)) returned_event = true;
        const bool all_back = buffers[0].use_count() == 1 && buffers[1].use_count() == 1;
        if (answered && all_back && returned_event) effects.finish({});
    });
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.send(kShard, numbered(1));
        auto* received = std::get_if<Received>(&event);
        if (received == nullptr) return;
        const auto& blocks = std::get<Initialise>(received->message.body).blocks;
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            whole = whole && blocks[i].weights.size() == kBytes &&
                    all_bytes_are(blocks[i].weights.bytes, static_cast<int>(i + 1));
            kept.push_back(blocks[i].weights);
        }
        effects.send(kShard, numbered(2));
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(whole);
    REQUIRE(kept.size() == 2);
    // What the receiver kept is its own: the sender may write its buffers again.
    std::memset(buffers[0]->data(), 9, kBytes);
    CHECK(all_bytes_are(kept.at(0).bytes, 1));
}

TEST_CASE("runtime: a message to a node that is not there disturbs nobody") {
    const auto& kind = GENERATE_REF(from_range(runtimes()));
    CAPTURE(kind.name);
    const auto runtime = kind.make();
    bool arrived = false;
    ScriptedNode shard([&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) effects.send(node_of(WorkerId{8}), numbered(1));
        if (number_of(event) == 0) return;
        arrived = true;
        effects.finish({});
    });
    ScriptedNode worker([&](Event&& event, Time, Effects& effects) {
        if (!std::holds_alternative<Started>(event)) return;
        effects.send(node_of(ShardId{5}), numbered(1));
        effects.send(kShard, numbered(2));
        effects.finish({});
    });
    runtime->spawn(kShard, shard, nullptr);
    runtime->spawn(kWorker, worker, nullptr);
    REQUIRE(runtime->run(kDeadline));
    CHECK(arrived);
}

}  // namespace detente::testing
