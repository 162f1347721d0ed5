// Two loops in one process, over loopback.
#include <catch2/catch.hpp>
#include <cstring>

#include "tests/runtime/running_loop.h"

namespace detente::testing {
namespace {

Payload counted_payload(std::size_t bytes, std::uint64_t seed) {
    auto buffer = std::make_shared<AlignedBuffer>(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
        buffer->data()[i] = static_cast<std::byte>((i * 131 + seed * 17) >> 3U);
    }
    return payload_of(std::move(buffer));
}

Message push_of(std::uint64_t step, std::size_t bytes) {
    Push push;
    push.step = Step{step};
    push.batch.count = 1;
    push.blocks.push_back(
        {BlockId{step}, TaskSet{1}, Epoch{1}, Version{0}, counted_payload(bytes, step), {}});
    return {Envelope{}, std::move(push)};
}

}  // namespace

TEST_CASE("zmq: multi-MiB payloads arrive whole and in order, over tcp and ipc") {
    const auto transport = GENERATE(TransportKind::tcp, TransportKind::ipc);
    constexpr std::uint64_t kPushes = 12;
    const auto bytes_of_step = [](std::uint64_t step) -> std::size_t {
        return step % 4 == 0 ? 4U << 20U : (step * 100'003U) % (3U << 20U) + 1;
    };
    std::vector<std::uint64_t> arrived;
    bool whole = true;
    auto shard_options = options_of(kShard0);
    shard_options.transport = transport;
    RunningLoop shard(shard_options, [&](Event&& event, Time, Effects& effects) {
        const auto* received = std::get_if<Received>(&event);
        if (is_stop(event)) effects.finish({});
        if (received == nullptr) return;
        const auto* push = std::get_if<Push>(&received->message.body);
        if (push == nullptr) return;
        arrived.push_back(push->step.value);
        const Payload expected = counted_payload(bytes_of_step(push->step.value), push->step.value);
        const Payload& got = push->blocks.at(0).gradient;
        whole = whole && got.size() == expected.size() &&
                std::memcmp(got.bytes.data(), expected.bytes.data(), got.size()) == 0;
        if (push->step.value == kPushes) {
            effects.send(kWorker0, numbered(1));
            effects.finish({});
        }
    });
    auto worker_options = options_of(kWorker0);
    worker_options.transport = transport;
    RunningLoop worker(worker_options, [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<PeerUp>(event)) {
            for (std::uint64_t step = 1; step <= kPushes; ++step) {
                effects.send(kShard0, push_of(step, bytes_of_step(step)));
            }
        }
        if (number_of(event) == 1 || is_stop(event)) effects.finish({});
    });
    worker.introduce(shard.loop().endpoint());
    shard.start();
    worker.start();
    REQUIRE(shard.ended_within(kTestDeadline));
    REQUIRE(worker.ended_within(kTestDeadline));
    CHECK(whole);
    REQUIRE(arrived.size() == kPushes);
    CHECK(std::is_sorted(arrived.begin(), arrived.end()));
    CHECK(shard.loop().counters().messages_in == kPushes);
    CHECK(worker.loop().counters().bytes_out == shard.loop().counters().bytes_in);
    CHECK(worker.loop().counters().dropped == 0);
}

TEST_CASE(
    "zmq: a payload lent to the transport lives until it has left, and is let go on the "
    "loop's thread") {
    std::thread::id loop_thread;
    std::atomic<std::thread::id> dropped_on{};
    bool returned = false;
    bool dropped_before_event = false;
    RunningLoop shard(options_of(kShard0), [&](Event&& event, Time, Effects& effects) {
        if (is_stop(event)) effects.finish({});
        if (std::holds_alternative<Received>(event)) effects.send(kWorker0, numbered(1));
    });
    RunningLoop worker(options_of(kWorker0), [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<PeerUp>(event)) {
            loop_thread = std::this_thread::get_id();
            auto bytes = std::make_unique<AlignedBuffer>(1U << 20U);
            std::memset(bytes->data(), 0, bytes->size());
            const std::span<const std::byte> view{bytes->data(), bytes->size()};
            std::shared_ptr<const void> owner(bytes.release(), [&](const void* buffer) {
                dropped_on = std::this_thread::get_id();
                delete static_cast<const AlignedBuffer*>(buffer);
            });
            Push push;
            push.step = Step{1};
            push.batch.count = 1;
            push.blocks.push_back(
                {BlockId{0}, TaskSet{1}, Epoch{1}, Version{0}, {std::move(owner), view}, {}});
            effects.send(kShard0, {Envelope{}, std::move(push)});
        }
        if (std::holds_alternative<BuffersReturned>(event)) {
            returned = true;
            dropped_before_event = dropped_on.load() == loop_thread;
        }
        if (returned || is_stop(event)) effects.finish({});
    });
    worker.introduce(shard.loop().endpoint());
    shard.start();
    worker.start();
    REQUIRE(worker.ended_within(kTestDeadline));
    CHECK(returned);
    CHECK(dropped_before_event);
}

TEST_CASE("zmq: a new incarnation takes its predecessor's place, and the old one is refused") {
    std::vector<std::uint32_t> heard;
    std::optional<ErrorCode> refusal;
    RunningLoop shard(options_of(kShard0), [&](Event&& event, Time, Effects& effects) {
        if (is_stop(event)) effects.finish({});
        if (number_of(event) == 0) return;
        heard.push_back(std::get<Received>(event).message.envelope.incarnation.value);
        effects.send(kWorker0, numbered(100 + heard.back()));
    });
    const auto worker_script = [&](std::uint64_t wanted) {
        return [&, wanted](Event&& event, Time, Effects& effects) {
            if (std::holds_alternative<PeerUp>(event)) effects.send(kShard0, numbered(1));
            if (std::holds_alternative<BuffersReturned>(event)) return;
            if (const auto* received = std::get_if<Received>(&event)) {
                if (const auto* no = std::get_if<Refusal>(&received->message.body)) {
                    refusal = no->code;
                    effects.finish({});
                }
            }
            if (number_of(event) == wanted || is_stop(event)) effects.finish({});
        };
    };
    shard.start();
    auto second_options = options_of(kWorker0);
    second_options.incarnation = Incarnation{2};
    RunningLoop second(second_options, worker_script(102));
    second.introduce(shard.loop().endpoint());
    second.start();
    REQUIRE(second.ended_within(kTestDeadline));
    RunningLoop first(options_of(kWorker0), worker_script(101));
    first.introduce(shard.loop().endpoint());
    first.start();
    REQUIRE(first.ended_within(kTestDeadline));
    CHECK(heard == std::vector<std::uint32_t>{2});
    CHECK(refusal == ErrorCode::peer_lost);
}

TEST_CASE("zmq: a peer that is lost and comes back at another address is reached again") {
    std::vector<std::string> seen;
    std::uint64_t at_second = 0;
    const auto shard_script = [&](std::uint64_t& count) {
        return [&](Event&& event, Time, Effects& effects) {
            if (number_of(event) != 0) count = number_of(event);
            if (number_of(event) != 0 || is_stop(event)) effects.finish({});
        };
    };
    std::uint64_t at_first = 0;
    auto first = std::make_unique<RunningLoop>(options_of(kShard0), shard_script(at_first));
    auto second_options = options_of(kShard0);
    second_options.incarnation = Incarnation{2};
    RunningLoop second(second_options, shard_script(at_second));
    RunningLoop worker(options_of(kWorker0), [&](Event&& event, Time, Effects& effects) {
        if (const auto* up = std::get_if<PeerUp>(&event)) {
            seen.push_back("up " + std::to_string(up->incarnation.value));
            effects.send(kShard0, numbered(up->incarnation.value));
        }
        if (const auto* down = std::get_if<PeerDown>(&event)) seen.push_back(down->reason);
        if (is_stop(event)) effects.finish({});
    });
    worker.introduce(first->loop().endpoint());
    first->start();
    worker.start();
    REQUIRE(first->ended_within(kTestDeadline));
    worker.lose(kShard0, Incarnation{1});
    worker.introduce(second.loop().endpoint());
    second.start();
    REQUIRE(second.ended_within(kTestDeadline));
    worker.stop();
    REQUIRE(worker.ended_within(kTestDeadline));
    CHECK(at_first == 1);
    CHECK(at_second == 2);
    CHECK(seen == std::vector<std::string>{"up 1", "as told", "up 2"});
}

TEST_CASE("zmq: a port in use is one error that names it") {
    auto options = options_of(kShard0);
    const auto first = ZmqLoop::open(options);
    REQUIRE(first.has_value());
    const std::string tcp = (*first)->endpoint().tcp;
    options.port = static_cast<std::uint16_t>(std::stoi(tcp.substr(tcp.rfind(':') + 1)));
    const auto second = ZmqLoop::open(options);
    REQUIRE(second.has_error());
    CHECK(second.error().code == ErrorCode::io);
    CHECK(second.error().text.find(tcp) != std::string::npos);
    CHECK(second.error().text.find("in use") != std::string::npos);
}

TEST_CASE("zmq: what cannot be sent to a vanished peer is counted and logged once") {
    RunningLoop shard(options_of(kShard0), [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<Started>(event)) {
            for (int i = 0; i < 5; ++i) effects.send(kWorker0, numbered(1));
            effects.finish({});
        }
    });
    shard.start();
    REQUIRE(shard.ended_within(kTestDeadline));
    CHECK(shard.loop().counters().dropped == 5);
    CHECK(shard.log.containing("worker:0") == 1);
}

TEST_CASE("zmq: checksums travel between hosts and not within one, unless the job says so") {
    const auto [mode, worker_host, expected] =
        GENERATE(table<ChecksumMode, const char*, bool>({{ChecksumMode::automatic, "here", false},
                                                         {ChecksumMode::automatic, "there", true},
                                                         {ChecksumMode::on, "here", true},
                                                         {ChecksumMode::off, "there", false}}));
    bool at_shard = !expected;
    bool at_worker = !expected;
    const auto checksum_in = [](const Event& event) {
        const auto* received = std::get_if<Received>(&event);
        return received != nullptr && std::holds_alternative<Push>(received->message.body)
                   ? std::optional(
                         std::get<Push>(received->message.body).blocks.at(0).checksum.has_value())
                   : std::nullopt;
    };
    auto shard_options = options_of(kShard0);
    shard_options.checksum = mode;
    RunningLoop shard(shard_options, [&](Event&& event, Time, Effects& effects) {
        if (const auto found = checksum_in(event)) {
            at_shard = *found;
            effects.send(kWorker0, push_of(1, 4096));
            effects.finish({});
        }
        if (is_stop(event)) effects.finish({});
    });
    auto worker_options = options_of(kWorker0);
    worker_options.checksum = mode;
    worker_options.host = worker_host;
    RunningLoop worker(worker_options, [&](Event&& event, Time, Effects& effects) {
        if (std::holds_alternative<PeerUp>(event)) effects.send(kShard0, push_of(1, 4096));
        if (const auto found = checksum_in(event)) at_worker = *found;
        if (checksum_in(event) || is_stop(event)) effects.finish({});
    });
    worker.introduce(shard.loop().endpoint());
    shard.start();
    worker.start();
    REQUIRE(shard.ended_within(kTestDeadline));
    REQUIRE(worker.ended_within(kTestDeadline));
    CHECK(at_shard == expected);
    CHECK(at_worker == expected);
}

}  // namespace detente::testing
