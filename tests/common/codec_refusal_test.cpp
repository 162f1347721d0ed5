// Bytes that are no message of ours are refused with a typed error, whatever is wrong with them.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <functional>

#include "common/codec/body_writer.h"
#include "common/wire_version.h"
#include "tests/common/codec_samples.h"

// Messages below name only the field that is wrong; g++ 12 wants the others named as well.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

namespace detente {
namespace {

using Builder = flatbuffers::FlatBufferBuilder;

Payload bytes_of_size(std::size_t size) { return copy_of(std::vector<std::byte>(size)); }

// A push of `sizes.size()` blocks, then whatever `alter` does to the header and the frames.
Message push_of(const std::vector<std::size_t>& sizes) {
    Push push;
    push.step = {1};
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        push.blocks.push_back({{i}, TaskSet{1}, {1}, {1}, bytes_of_size(sizes[i]), {}});
    }
    return {{}, push};
}

// The header as writable bytes, and its rows, to lie in.
struct Forged {
    explicit Forged(const Message& message) : frames(encode(message, false)) {
        header.assign(frames.header.bytes.begin(), frames.header.bytes.end());
    }
    const wire::Message* message() { return wire::GetMessage(header.data()); }
    template <class T>
    T* row(const flatbuffers::Vector<const T*>* list, std::size_t i) {
        return const_cast<T*>(list->Get(static_cast<flatbuffers::uoffset_t>(i)));
    }
    wire::GradientBlock* block(std::size_t i) {
        return row(message()->body_as_Push()->blocks(), i);
    }
    // Rewrites a row with other frame, offset and length.
    void lie(std::size_t i, std::uint16_t frame, std::uint32_t offset, std::uint32_t length) {
        wire::GradientBlock* at = block(i);
        *at = {at->block(), at->tasks(), at->base(), 0, at->epoch(), offset, length, frame, false};
    }
    Result<Message> decoded() {
        reseal(header);
        return decode(header, frames.payloads);
    }
    ErrorCode refused() {
        const Result<Message> result = decoded();
        if (result) FAIL("was taken");
        INFO(result.error().text);
        CHECK(!result.error().text.empty());
        return result.error().code;
    }
    Frames frames;
    std::vector<std::byte> header;
};

// A header made by hand, for what the encoder does not make.
ErrorCode refused(const std::function<codec::BodyWriter::Written(Builder&)>& body,
                  std::uint32_t version = kWireVersion, bool envelope = true) {
    Builder builder;
    const codec::BodyWriter::Written written = body(builder);
    const wire::Envelope sender{};
    wire::FinishMessageBuffer(
        builder, wire::CreateMessage(builder, version, envelope ? &sender : nullptr, written.kind,
                                     written.offset));
    std::vector<std::byte> header(builder.GetSize() + kSealBytes);
    std::memcpy(header.data(), builder.GetBufferPointer(), builder.GetSize());
    reseal(header);
    const Result<Message> result = decode(header, {});
    if (result) FAIL("was taken");
    INFO(result.error().text);
    return result.error().code;
}
codec::BodyWriter::Written go(Builder& builder) {
    return {wire::Body::Go, wire::CreateGo(builder).Union()};
}

TEST_CASE("codec: garbage is a bad message") {
    Random random(random_key(11, Purpose::test));
    for (int round = 0; round < 2000; ++round) {
        std::vector<std::byte> garbage(random.below(300));
        for (std::byte& byte : garbage) byte = static_cast<std::byte>(random.below(256));
        if (garbage.size() > 8 && round % 2 == 0) std::memcpy(&garbage[4], "DTNT", 4);
        const Result<Message> result = decode(garbage, {});
        REQUIRE_FALSE(result.has_value());
        CHECK((result.error().code == ErrorCode::bad_message ||
               result.error().code == ErrorCode::wrong_build));
        CHECK_FALSE(decode_stream(garbage).has_value());
    }
    CHECK(decode({}, {}).error().code == ErrorCode::bad_message);
    CHECK(decode_stream({}).error().code == ErrorCode::bad_message);
}

TEST_CASE("codec: another wire version is told apart from garbage, however it is laid out") {
    CHECK(refused(go, kWireVersion + 1) == ErrorCode::wrong_build);
    CHECK(refused(go, 0) == ErrorCode::wrong_build);
    // A later version without envelope, with a body unknown here.
    const auto unknown = [](Builder& builder) -> codec::BodyWriter::Written {
        return {static_cast<wire::Body>(200), wire::CreateGo(builder).Union()};
    };
    CHECK(refused(unknown, kWireVersion + 1, false) == ErrorCode::wrong_build);
    CHECK(refused(unknown, kWireVersion) == ErrorCode::bad_message);
}

TEST_CASE("codec: a message without envelope or body is refused") {
    CHECK(refused(go, kWireVersion, false) == ErrorCode::bad_message);
    CHECK(refused([](Builder&) { return codec::BodyWriter::Written{}; }) == ErrorCode::bad_message);
}

TEST_CASE("codec: truncation at every byte is refused") {
    Random random(random_key(12, Purpose::test));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        const Message message = sample_message(kind, Sample::mixed, random);
        const std::vector<std::byte> whole = encode_stream(message);
        const Frames frames = encode(message, false);
        INFO(kind_of(message.body));
        for (std::size_t size = 0; size < whole.size(); size += 1 + size / 4096 * 997) {
            // Own allocation, so that the address sanitizer sees a read beyond the end.
            const std::vector<std::byte> cut(whole.begin(),
                                             whole.begin() + static_cast<std::ptrdiff_t>(size));
            CHECK_FALSE(decode_stream(cut).has_value());
        }
        for (std::size_t size = 0; size < frames.header.size(); ++size) {
            const auto bytes = frames.header.bytes.first(size);
            const std::vector<std::byte> cut(bytes.begin(), bytes.end());
            const Result<Message> result = decode(cut, frames.payloads);
            REQUIRE(result.has_error());
            CHECK(result.error().code == ErrorCode::bad_message);
        }
    }
}

TEST_CASE("codec: any single bit of a header flipped on its way is noticed") {
    Random random(random_key(14, Purpose::test));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        const Message message = sample_message(kind, Sample::mixed, random);
        const Frames frames = encode(message, true);
        std::vector<std::byte> header(frames.header.bytes.begin(), frames.header.bytes.end());
        INFO(kind_of(message.body));
        REQUIRE(decode(header, frames.payloads).has_value());
        for (std::size_t bit = 0; bit < 8 * header.size(); ++bit) {
            const auto mask = static_cast<std::byte>(1U << (bit % 8));
            header[bit / 8] ^= mask;
            if (decode(header, frames.payloads)) FAIL("bit " << bit << " was taken");
            header[bit / 8] ^= mask;
        }
    }
}

// Behind the seal: what a peer of this build could send by mistake.
TEST_CASE("codec: any single bit flipped gives a message within bounds or a typed error") {
    Random random(random_key(13, Purpose::test));
    std::size_t taken = 0;
    std::size_t refused_ones = 0;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        const Message message = sample_message(kind, Sample::mixed, random);
        const Frames frames = encode(message, true);
        std::vector<std::byte> header(frames.header.bytes.begin(), frames.header.bytes.end());
        for (std::size_t bit = 0; bit < 8 * (header.size() - kSealBytes); ++bit) {
            const auto mask = static_cast<std::byte>(1U << (bit % 8));
            header[bit / 8] ^= mask;
            reseal(header);
            const Result<Message> result = decode(header, frames.payloads);
            header[bit / 8] ^= mask;
            if (!result) {
                ++refused_ones;
                continue;
            }
            ++taken;
            if (payload_bytes(result->body) > kMostMessageBytes) FAIL("beyond bounds");
            // What was taken is a message that can be sent on.
            if (bit % 64 == 0) CHECK(decode_stream(encode_stream(*result)).has_value());
        }
    }
    CHECK(taken > 1000);
    CHECK(refused_ones > 1000);
}

TEST_CASE("codec: lengths and offsets that lie are refused") {
    const Message message = push_of({64, 32, 16});
    REQUIRE(Forged(message).decoded().has_value());
    const auto lying = [&message](std::size_t row, std::uint16_t frame, std::uint32_t offset,
                                  std::uint32_t length) {
        Forged forged(message);
        forged.lie(row, frame, offset, length);
        return forged.refused();
    };
    CHECK(lying(2, 0, 96, 17) == ErrorCode::bad_message);             // beyond the end
    CHECK(lying(2, 0, 96, 15) == ErrorCode::bad_message);             // a byte that is nobody's
    CHECK(lying(2, 0, 0xFFFFFFF0U, 0x20) == ErrorCode::bad_message);  // overflow of 32 bits
    CHECK(lying(2, 0, 0xFFFFFFFFU, 0xFFFFFFFFU) == ErrorCode::bad_message);
    CHECK(lying(2, 1, 96, 16) == ErrorCode::bad_message);  // no such frame
    CHECK(lying(2, 65535, 96, 16) == ErrorCode::bad_message);
    CHECK(lying(1, 0, 63, 32) == ErrorCode::bad_message);  // overlaps
    CHECK(lying(1, 0, 0, 32) == ErrorCode::bad_message);   // the same bytes twice
    CHECK(lying(0, 0, 0, 32) == ErrorCode::bad_message);   // a gap
    CHECK(lying(2, 0, 96, 0) == ErrorCode::bad_message);   // empty, but somewhere
    CHECK(lying(2, 0, 0, 0) == ErrorCode::bad_message);    // empty, and its bytes nobody's
}

TEST_CASE("codec: frames that no block fills are refused") {
    Forged forged(push_of({64, 32}));
    forged.frames.payloads.push_back(bytes_of_size(16));
    CHECK(forged.refused() == ErrorCode::bad_message);
    forged.frames.payloads.back() = {};
    CHECK(forged.refused() == ErrorCode::bad_message);
    forged.frames.payloads.clear();
    CHECK(forged.refused() == ErrorCode::bad_message);
    Forged bodyless({{}, Go{}});
    bodyless.frames.payloads.push_back(bytes_of_size(16));
    CHECK(bodyless.refused() == ErrorCode::bad_message);
    bodyless.frames.payloads.assign(kMostPayloadFrames + 1, bytes_of_size(16));
    CHECK(bodyless.refused() == ErrorCode::over_limit);
}

TEST_CASE("codec: more payload than a message may carry is over the limit") {
    Forged forged(push_of({kMostMessageBytes}));
    REQUIRE(forged.decoded().has_value());
    forged.frames.payloads[0] = bytes_of_size(kMostMessageBytes + 4);
    forged.lie(0, 0, 0, kMostMessageBytes + 4);
    CHECK(forged.refused() == ErrorCode::over_limit);
}

TEST_CASE("codec: a block listed twice is refused, wherever blocks are listed") {
    Random random(random_key(14, Purpose::test));
    Message message = push_of({8, 8, 8});
    std::get<Push>(message.body).blocks[2].block = {0};
    CHECK(Forged(message).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, PullRequest{.blocks = {{3}, {2}, {3}}}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, PushReply{.verdicts = {{.block = {5}}, {.block = {5}}}}}).refused() ==
          ErrorCode::bad_message);
    CHECK(Forged({{}, PullReply{.blocks = {{.block = {5}}, {.block = {5}}}}}).refused() ==
          ErrorCode::bad_message);
    CHECK(Forged({{}, Initialise{.blocks = {{.block = {5}}, {.block = {5}}}}}).refused() ==
          ErrorCode::bad_message);
    CHECK(Forged({{}, StageNotice{.sums = {{{1}, 0}, {{1}, 0}}}}).refused() ==
          ErrorCode::bad_message);
    CHECK(Forged({{}, PullRequest{.blocks = {{3}, {2}, {1}}}}).decoded().has_value());
}

TEST_CASE("codec: a number beyond its enumeration is refused") {
    CHECK(Forged({{}, CancelNote{.reason = static_cast<CancelReason>(5)}}).refused() ==
          ErrorCode::bad_message);
    CHECK(Forged({{}, Wait{.why = static_cast<WaitFor>(3)}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, StageDecision{.aborts = {{.advice = static_cast<Advice>(5)}}}}).refused() ==
          ErrorCode::bad_message);
    CHECK(Forged({{}, Refusal{.code = static_cast<ErrorCode>(20)}}).refused() ==
          ErrorCode::bad_message);
    const auto verdict = [](Verdict verdict, Advice advice, ErrorCode reason) {
        return Forged({{},
                       PushReply{
                           .verdicts = {{.verdict = verdict, .advice = advice, .reason = reason}}}})
            .refused();
    };
    CHECK(verdict(static_cast<Verdict>(4), {}, {}) == ErrorCode::bad_message);
    CHECK(verdict({}, static_cast<Advice>(5), {}) == ErrorCode::bad_message);
    CHECK(verdict({}, {}, static_cast<ErrorCode>(255)) == ErrorCode::bad_message);
    Message message{{}, Go{}};
    message.envelope.from.role = static_cast<Role>(4);
    CHECK(Forged(message).refused() == ErrorCode::bad_message);
    message.envelope = {};
    message.envelope.to.role = static_cast<Role>(9);
    CHECK(Forged(message).refused() == ErrorCode::bad_message);
    message.envelope = {};
    message.envelope.request_class = static_cast<RequestClass>(4);
    CHECK(Forged(message).refused() == ErrorCode::bad_message);
    message.envelope = {};
    message.envelope.deadline = Nanos{-1};
    CHECK(Forged(message).refused() == ErrorCode::bad_message);
}

TEST_CASE("codec: a commit of nothing is refused") {
    CHECK(Forged({{}, StageDecision{.commits = {{}}}}).refused() == ErrorCode::bad_message);
}

TEST_CASE("codec: rows are not supported yet, unknown encodings are no message") {
    Message message = push_of({8});
    std::get<Push>(message.body).encoding = Encoding::rows;
    CHECK(Forged(message).refused() == ErrorCode::not_supported);
    std::get<Push>(message.body).encoding = static_cast<Encoding>(2);
    CHECK(Forged(message).refused() == ErrorCode::bad_message);
}

TEST_CASE("codec: scales, weights and sums that are not finite are refused") {
    for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
        CHECK(Forged({{}, PushReply{.verdicts = {{.step_scale = bad}}}}).refused() ==
              ErrorCode::not_finite);
        const auto decision = [](double denominator, float step_scale, float weight) {
            return Forged({{},
                           StageDecision{.commits = {{.denominator = denominator,
                                                      .step_scale = step_scale,
                                                      .pushes = {{.gradient_weight = weight}}}}}})
                .refused();
        };
        CHECK(decision(double{bad}, 1, 1) == ErrorCode::not_finite);
        CHECK(decision(1, bad, 1) == ErrorCode::not_finite);
        CHECK(decision(1, 1, bad) == ErrorCode::not_finite);
        CHECK(decision(0, 1, 1) == ErrorCode::not_finite);
        CHECK(Forged({{}, StageNotice{.sums = {{{1}, 0, double{bad}}}}}).refused() ==
              ErrorCode::not_finite);
        // A run that diverges may say so.
        CHECK(Forged({{}, Status{.losses = {double{bad}}}}).decoded().has_value());
    }
}

TEST_CASE("codec: parts beyond their number and batches beyond the last are refused") {
    CHECK(Forged({{}, Push{.part = {1}, .parts = 1}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, Push{.parts = 0}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, PullReply{.part = {3}, .parts = 3}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, Initialise{.part = {3}, .parts = 2}}).refused() == ErrorCode::bad_message);
    const BatchRange beyond{.first = 0xFFFFFFFFU, .count = 1};
    CHECK(Forged({{}, Push{.batch = beyond}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, LeaseReply{.granted = {beyond}}}).refused() == ErrorCode::bad_message);
    CHECK(Forged({{}, LeaseRequest{.finished = {beyond}}}).refused() == ErrorCode::bad_message);
}

TEST_CASE("codec: lists, texts and headers beyond their bounds are over the limit") {
    CHECK(Forged({{}, PullRequest{.blocks = std::vector<BlockId>(kMostBlocksPerMessage + 1)}})
              .refused() == ErrorCode::over_limit);
    CHECK(Forged({{}, LeaseReply{.granted = std::vector<BatchRange>(kMostListEntries + 1)}})
              .refused() == ErrorCode::over_limit);
    CHECK(Forged({{}, Status{.values = std::vector<NamedValue>(kMostListEntries + 1)}}).refused() ==
          ErrorCode::over_limit);
    CHECK(Forged({{}, Stop{.reason = std::string(kMostTextBytes + 1, 'x')}}).refused() ==
          ErrorCode::over_limit);
    const std::string large(kMostTextBytes - 256, 'x');
    CHECK(Forged({{}, Welcome{.job = large, .model = large}}).decoded().has_value());
    CHECK(decode(std::vector<std::byte>(kMostHeaderBytes + 1), {}).error().code ==
          ErrorCode::over_limit);
}

TEST_CASE("codec: one text shared by a thousand tables is refused, not multiplied") {
    const auto code = refused([](Builder& builder) -> codec::BodyWriter::Written {
        const auto text = builder.CreateString(std::string(1U << 20U, 'x'));
        const auto peer = wire::CreateEndpoint(builder, 0, 0, 0, text, text, text);
        const auto peers =
            builder.CreateVector(std::vector<flatbuffers::Offset<wire::Endpoint>>(1000, peer));
        return {wire::Body::Welcome, wire::CreateWelcome(builder, {}, {}, peers).Union()};
    });
    CHECK(code == ErrorCode::bad_message);
}

TEST_CASE("codec: a missing endpoint is refused") {
    CHECK(refused([](Builder& builder) -> codec::BodyWriter::Written {
              return {wire::Body::Hello, wire::CreateHello(builder).Union()};
          }) == ErrorCode::bad_message);
}

TEST_CASE("codec: a list of structs at an odd address is refused, not read") {
    // Moves the blocks by four bytes: still a list for FlatBuffers, but its 64-bit fields straddle.
    Forged forged({{}, PullRequest{.blocks = {{1}, {2}, {3}, {4}}}});
    const auto* list = forged.message()->body_as_PullRequest()->blocks();
    auto* length =
        reinterpret_cast<std::uint32_t*>(const_cast<flatbuffers::Vector<std::uint64_t>*>(list));
    const auto* table =
        reinterpret_cast<const flatbuffers::Table*>(forged.message()->body_as_PullRequest());
    auto* field = const_cast<std::uint32_t*>(
        reinterpret_cast<const std::uint32_t*>(table->GetAddressOf(wire::PullRequest::VT_BLOCKS)));
    *field += 4;
    length[1] = 3;  // a shorter list, 4 bytes on
    CHECK(forged.refused() == ErrorCode::bad_message);
}

TEST_CASE("codec: stream lengths that lie are refused before anything is allocated") {
    const auto length = [](std::uint32_t value) {
        std::vector<std::byte> bytes(4);
        for (unsigned i = 0; i < 4; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
        return bytes;
    };
    CHECK(stream_length(length(0xFFFFFFFFU)).error().code == ErrorCode::over_limit);
    CHECK(stream_length(length(64U << 20U)).error().code == ErrorCode::over_limit);
    CHECK(stream_length(std::vector<std::byte>(3)).error().code == ErrorCode::bad_message);
    CHECK(*stream_length(length(8)) == 12);
    CHECK(decode_stream(length(0)).error().code == ErrorCode::bad_message);
    std::vector<std::byte> bytes = encode_stream({{}, Go{}});
    bytes.push_back(std::byte{0});
    CHECK(decode_stream(bytes).error().code == ErrorCode::bad_message);
    bytes.pop_back();
    bytes[4] ^= std::byte{0xFF};  // the header's own length
    CHECK(decode_stream(bytes).error().code == ErrorCode::bad_message);
}

}  // namespace
}  // namespace detente
