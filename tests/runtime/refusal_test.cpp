// What a server does with peers that speak wrongly: typed no, counted, logged once, and on it goes.
#include <zmq.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "common/codec/codec.h"
#include "common/runtime/zmq/routing_id.h"
#include "tests/runtime/running_loop.h"

namespace detente::testing {
namespace {

// A plain libzmq dealer, to say what no loop of ours would.
class RawDealer {
  public:
    RawDealer(const std::string& address, const std::string& routing_id)
        : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_DEALER)) {
        const int linger_ms = 0;
        const int wait_ms = 20000;
        zmq_setsockopt(socket_, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_setsockopt(socket_, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
        if (!routing_id.empty()) {
            zmq_setsockopt(socket_, ZMQ_ROUTING_ID, routing_id.data(), routing_id.size());
        }
        zmq_connect(socket_, address.c_str());
    }
    ~RawDealer() {
        zmq_close(socket_);
        zmq_ctx_term(context_);
    }
    RawDealer(const RawDealer&) = delete;
    RawDealer& operator=(const RawDealer&) = delete;

    void send(const std::vector<std::string>& frames) {
        for (std::size_t i = 0; i < frames.size(); ++i) {
            zmq_send(socket_, frames[i].data(), frames[i].size(),
                     i + 1 < frames.size() ? ZMQ_SNDMORE : 0);
        }
    }
    void send(const Message& message) {
        const Frames frames = encode(message, true);
        std::vector<std::string> texts;
        texts.push_back(text_of(frames.header));
        for (const Payload& payload : frames.payloads) texts.push_back(text_of(payload));
        send(texts);
    }
    std::optional<Message> receive() {
        std::vector<Payload> frames;
        int more = 1;
        while (more != 0) {
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, socket_, 0) < 0) return std::nullopt;
            more = zmq_msg_more(&frame);
            frames.push_back(copy_of(
                {static_cast<const std::byte*>(zmq_msg_data(&frame)), zmq_msg_size(&frame)}));
            zmq_msg_close(&frame);
        }
        const Payload header = frames.front();
        frames.erase(frames.begin());
        auto message = decode(header.bytes, std::move(frames));
        if (!message) return std::nullopt;
        return std::move(*message);
    }

  private:
    static std::string text_of(const Payload& payload) {
        return {reinterpret_cast<const char*>(payload.bytes.data()), payload.size()};
    }
    void* context_;
    void* socket_;
};

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
