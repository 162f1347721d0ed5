// What a server does with peers that speak wrongly: typed no, counted, logged once, and on it goes.
#include <catch2/catch.hpp>
#include <cstring>

#include "common/codec/codec.h"
#include "common/runtime/zmq/routing_id.h"
#include "tests/runtime/raw_dealer.h"
#include "tests/runtime/running_loop.h"

namespace detente::testing {
namespace {

struct Server {
    std::vector<std::uint64_t> heard;
    RunningLoop loop{[] {
                         auto options = options_of(kShard0);
                         options.generation = Generation{3};
                         options.build = 77;
                         return options;
                     }(),
                     [this](Event&& event, Time, Effects& effects) {
                         if (is_stop(event)) effects.finish({});
                         if (number_of(event) == 0) return;
                         heard.push_back(number_of(event));
                         effects.send(std::get<Received>(event).message.envelope.from,
                                      numbered(number_of(event)));
                     }};
};

Message from_worker(std::uint64_t number) {
    Message message = numbered(number);
    message.envelope.from = kWorker0;
    message.envelope.to = kShard0;
    message.envelope.generation = Generation{3};
    message.envelope.build = 77;
    return message;
}
const std::string kWorkerName = bytes_of({kWorker0, Incarnation{1}, hash_of_host("here")});

std::optional<ErrorCode> refusal_in(const std::optional<Message>& message) {
    if (!message) return std::nullopt;
    const auto* refusal = std::get_if<Refusal>(&message->body);
    return refusal == nullptr ? std::nullopt : std::optional(refusal->code);
}

}  // namespace

TEST_CASE("zmq: garbage is refused, counted, logged once, answered, and the server goes on") {
    Server server;
    server.loop.start();
    RawDealer known(server.loop.loop().endpoint().tcp, kWorkerName);
    for (int i = 0; i < 3; ++i) {
        known.send({"this is no message of ours", "nor this"});
        CHECK(refusal_in(known.receive()) == ErrorCode::bad_message);
    }
    known.send(from_worker(5));
    const auto answer = known.receive();
    REQUIRE(answer.has_value());
    CHECK(number_of(Received{*answer}) == 5);
    CHECK(server.loop.loop().counters().refused_as(ErrorCode::bad_message) == 3);
    CHECK(server.loop.log.containing("worker:0 (bad_message)") == 1);
    server.loop.stop();
    REQUIRE(server.loop.ended_within(kTestDeadline));
    CHECK(server.heard == std::vector<std::uint64_t>{5});
}

TEST_CASE("zmq: what was refused goes to the coordinator with what the node reports") {
    struct Control : ControlLink {
        void send(Message message) override { reports.push_back(std::move(message.body)); }
        std::vector<Body> reports;  // read when the loop has ended
    } control;
    auto options = options_of(kShard0);
    options.generation = Generation{3};
    options.build = 77;
    options.control = &control;
    RunningLoop server(std::move(options), [](Event&& event, Time, Effects& effects) {
        Status status;
        status.values = {{"pushes", 4}};
        if (is_stop(event)) {
            effects.send(kCoordinator, {Envelope{}, Stopped{false, {}, "", status, {}}});
            effects.finish({});
        }
        if (number_of(event) == 0) return;
        effects.send(kCoordinator, {Envelope{}, status});
        effects.send(std::get<Received>(event).message.envelope.from, numbered(number_of(event)));
    });
    server.start();
    RawDealer peer(server.loop().endpoint().tcp, kWorkerName);
    peer.send(from_worker(1));
    REQUIRE(peer.receive().has_value());
    for (int i = 0; i < 2; ++i) {
        peer.send({"this is no message of ours"});
        CHECK(refusal_in(peer.receive()) == ErrorCode::bad_message);
    }
    Message other_build = from_worker(2);
    other_build.envelope.build = 78;
    peer.send(other_build);
    CHECK(refusal_in(peer.receive()) == ErrorCode::wrong_build);
    peer.send(from_worker(3));
    REQUIRE(peer.receive().has_value());
    server.stop();
    REQUIRE(server.ended_within(kTestDeadline));

    using Values = std::map<std::string, double>;
    const auto values_of = [](const Status& status) {
        Values values;
        for (const NamedValue& value : status.values) values[value.name] = value.value;
        return values;
    };
    const Values all{
        {"pushes", 4}, {"refused.transport.bad_message", 2}, {"refused.transport.wrong_build", 1}};
    REQUIRE(control.reports.size() == 3);
    CHECK(values_of(std::get<Status>(control.reports[0])) == Values{{"pushes", 4}});
    CHECK(values_of(std::get<Status>(control.reports[1])) == all);
    CHECK(values_of(std::get<Stopped>(control.reports[2]).last) == all);
}

TEST_CASE("zmq: a truncated header, a lost payload frame and a frame too many are refused") {
    Server server;
    server.loop.start();
    RawDealer peer(server.loop.loop().endpoint().tcp, kWorkerName);
    Message message = from_worker(1);
    Push push;
    push.step = Step{8};
    push.batch.count = 1;
    const std::vector<std::byte> gradient(1U << 17U);
    push.blocks.push_back(
        {BlockId{0}, TaskSet{1}, Epoch{1}, Version{0}, copy_of(gradient), std::nullopt});
    message.body = std::move(push);
    const Frames frames = encode(message, true);
    const auto text = [](const Payload& payload) {
        return std::string(reinterpret_cast<const char*>(payload.bytes.data()), payload.size());
    };
    const std::string header = text(frames.header);
    const std::string payload = text(frames.payloads.at(0));
    peer.send({header.substr(0, header.size() / 2), payload});
    CHECK(refusal_in(peer.receive()) == ErrorCode::bad_message);
    peer.send({header});
    CHECK(refusal_in(peer.receive()).has_value());
    peer.send({header, payload, payload});
    CHECK(refusal_in(peer.receive()).has_value());
    peer.send({header, payload.substr(0, 1000)});
    CHECK(refusal_in(peer.receive()).has_value());
    server.loop.stop();
    REQUIRE(server.loop.ended_within(kTestDeadline));
    CHECK(server.heard.empty());
}

TEST_CASE("zmq: more frames or bytes than a message may have are refused, and the server goes on") {
    Server server;
    server.loop.start();
    RawDealer peer(server.loop.loop().endpoint().tcp, kWorkerName);
    const auto text_of_refusal = [&peer](const std::vector<std::string>& frames) {
        peer.send(frames);
        const auto no = peer.receive();
        return refusal_in(no) == ErrorCode::bad_message ? std::get<Refusal>(no->body).text : "";
    };
    const std::vector<std::string> many(2 + kMostPayloadFrames, "x");
    CHECK_THAT(text_of_refusal(many),
               Catch::Contains("1 to 66 frames") && Catch::Contains("found more"));
    const std::string large(7U << 20U, 'x');  // as a frame it passes: libzmq's bound is 8 MiB
    CHECK_THAT(text_of_refusal({"x", large, large}),
               Catch::Contains("at most 13631488 bytes, found 14680065 bytes"));
    peer.send(from_worker(6));
    CHECK(number_of(Received{peer.receive().value()}) == 6);
    server.loop.stop();
    REQUIRE(server.loop.ended_within(kTestDeadline));
    CHECK(server.heard == std::vector<std::uint64_t>{6});
}

TEST_CASE(
    "zmq: another generation, another build, a false sender and a false receiver get a typed "
    "no that names the step") {
    Server server;
    server.loop.start();
    RawDealer peer(server.loop.loop().endpoint().tcp, kWorkerName);
    Message other_generation = from_worker(11);
    other_generation.envelope.generation = Generation{2};
    peer.send(other_generation);
    const auto no = peer.receive();
    CHECK(refusal_in(no) == ErrorCode::wrong_generation);
    REQUIRE(refusal_in(no).has_value());
    CHECK(std::get<Refusal>(no->body).step == Step{11});
    Message other_build = from_worker(12);
    other_build.envelope.build = 78;
    peer.send(other_build);
    CHECK(refusal_in(peer.receive()) == ErrorCode::wrong_build);
    Message false_sender = from_worker(13);
    false_sender.envelope.from = node_of(WorkerId{5});
    peer.send(false_sender);
    CHECK(refusal_in(peer.receive()) == ErrorCode::bad_message);
    Message false_receiver = from_worker(14);
    false_receiver.envelope.to = node_of(ShardId{9});
    peer.send(false_receiver);
    CHECK(refusal_in(peer.receive()) == ErrorCode::bad_message);
    peer.send(from_worker(15));
    CHECK(number_of(Received{peer.receive().value()}) == 15);
    server.loop.stop();
    REQUIRE(server.loop.ended_within(kTestDeadline));
    CHECK(server.heard == std::vector<std::uint64_t>{15});
    const LoopCounters counters = server.loop.loop().counters();
    CHECK(counters.refused_as(ErrorCode::wrong_generation) == 1);
    CHECK(counters.refused_as(ErrorCode::wrong_build) == 1);
    CHECK(counters.refused_as(ErrorCode::bad_message) == 2);
}

TEST_CASE(
    "zmq: a peer without a name of ours is counted and gets nothing, a refusal is not "
    "answered with a refusal") {
    Server server;
    server.loop.start();
    RawDealer stranger(server.loop.loop().endpoint().tcp, "");
    stranger.send(from_worker(1));
    stranger.send({"x"});
    RawDealer known(server.loop.loop().endpoint().tcp, kWorkerName);
    Message refusal = from_worker(1);
    refusal.envelope.generation = Generation{1};
    refusal.body = Refusal{ErrorCode::wrong_generation, "yours is wrong", {}, {}, 0};
    known.send(refusal);
    known.send(from_worker(2));
    CHECK(number_of(Received{known.receive().value()}) == 2);
    // One more round trip of the server's loop for the stranger's two.
    stranger.send({"y"});
    while (server.loop.loop().counters().refused_as(ErrorCode::bad_message) < 3) {
        known.send(from_worker(3));
        REQUIRE(known.receive().has_value());
    }
    CHECK(server.loop.log.containing("no node of ours") == 1);
    server.loop.stop();
    REQUIRE(server.loop.ended_within(kTestDeadline));
}

TEST_CASE("zmq: a second connection under the same name takes over from the first") {
    Server server;
    server.loop.start();
    RawDealer first(server.loop.loop().endpoint().tcp, kWorkerName);
    first.send(from_worker(1));
    CHECK(number_of(Received{first.receive().value()}) == 1);
    RawDealer second(server.loop.loop().endpoint().tcp, kWorkerName);
    second.send(from_worker(2));
    CHECK(number_of(Received{second.receive().value()}) == 2);
    server.loop.stop();
    REQUIRE(server.loop.ended_within(kTestDeadline));
}

}  // namespace detente::testing
