// What is encoded decodes to the same message; frames are cut as the contract says.
#include <catch2/catch.hpp>
#include <cstring>
#include <set>

#include "common/checksum.h"
#include "tests/common/codec_samples.h"

namespace detente {
namespace {

Result<Message> over_frames(const Message& message, bool checksums = false) {
    Frames frames = encode(message, checksums);
    return decode(frames.header.bytes, std::move(frames.payloads));
}

Payload zeros(std::size_t bytes) {
    AlignedBuffer buffer(bytes);
    if (bytes != 0) std::memset(buffer.data(), 0, bytes);
    return payload_of(std::make_shared<const AlignedBuffer>(std::move(buffer)));
}
Payload part_of(const Payload& whole, std::size_t offset, std::size_t bytes) {
    return {whole.owner, whole.bytes.subspan(offset, bytes)};
}
Message push_with(const std::vector<Payload>& gradients) {
    Push push;
    push.step = {7};
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        push.blocks.push_back({{i}, TaskSet{1}, {1}, {3}, gradients[i], {}});
    }
    return {{}, push};
}

TEST_CASE("codec: every kind of message survives the trip in every field") {
    Random random(random_key(1, Purpose::test));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        for (int round = 0; round < 100; ++round) {
            const Sample sample = round == 0   ? Sample::zeros
                                  : round == 1 ? Sample::largest
                                               : Sample::mixed;
            const Message message = sample_message(kind, sample, random);
            INFO(kind_of(message.body) << " round " << round);
            const Result<Message> framed = over_frames(message);
            if (!framed) FAIL(framed.error().text);
            CHECK(difference(message, *framed) == "");
            const Result<Message> streamed = decode_stream(encode_stream(message));
            if (!streamed) FAIL(streamed.error().text);
            CHECK(difference(message, *streamed) == "");
        }
    }
}

TEST_CASE("codec: a comparison that can fail: every mixed message differs from the next") {
    Random random(random_key(2, Purpose::test));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        const Message a = sample_message(kind, Sample::mixed, random);
        const Message b = sample_message(kind, Sample::mixed, random);
        CHECK(difference(a, b) != "");
        CHECK(difference(a, a) == "");
    }
}

TEST_CASE("codec: every kind has a name of its own") {
    Random random(random_key(3, Purpose::test));
    std::set<std::string> names;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        names.insert(kind_of(sample_message(kind, Sample::zeros, random).body));
    }
    CHECK(names.size() == kKinds);
    CHECK(names.count("push_reply") == 1);
    CHECK(std::string(name_of(Verdict::buffered)) == "buffered");
    CHECK(std::string(name_of(Advice::compensate)) == "compensate");
}

TEST_CASE("codec: payload bytes are counted over all blocks") {
    CHECK(payload_bytes(push_with({zeros(12), zeros(0), zeros(4096)}).body) == 4108);
    CHECK(payload_bytes(Body{Go{}}) == 0);
    PullRequest request;
    request.blocks = {{1}, {2}};
    CHECK(payload_bytes(Body{request}) == 0);
}

TEST_CASE("codec: small blocks travel in one copied frame, aligned to 16") {
    const std::vector<Payload> blocks = {zeros(4), zeros(100), zeros(0), zeros(16)};
    const Frames frames = encode(push_with(blocks), false);
    REQUIRE(frames.payloads.size() == 1);
    CHECK(frames.payloads[0].size() == 16 + 112 + 16);
    const Result<Message> back = decode(frames.header.bytes, frames.payloads);
    REQUIRE(back.has_value());
    const auto& decoded = std::get<Push>(back->body).blocks;
    CHECK(decoded[1].gradient.bytes.data() == frames.payloads[0].bytes.data() + 16);
    CHECK(decoded[2].gradient.empty());
    CHECK(decoded[3].gradient.bytes.data() == frames.payloads[0].bytes.data() + 128);
}

TEST_CASE("codec: a large block is a frame of its own and not copied") {
    const Payload small = zeros(64);
    const Payload large = zeros(kSmallBlockBytes);
    const Frames frames = encode(push_with({small, large, small}), false);
    REQUIRE(frames.payloads.size() == 2);
    CHECK(frames.payloads[0].size() == 128);
    CHECK(frames.payloads[1].bytes.data() == large.bytes.data());
    CHECK(large.owner.use_count() > 1);
}

TEST_CASE("codec: blocks side by side under one owner are one frame without a copy") {
    const Payload part = zeros(200 * 4096);
    std::vector<Payload> blocks;
    for (std::size_t i = 0; i < 200; ++i) blocks.push_back(part_of(part, i * 4096, 4096));
    const Frames frames = encode(push_with(blocks), true);
    REQUIRE(frames.payloads.size() == 1);
    CHECK(frames.payloads[0].bytes.data() == part.bytes.data());
    CHECK(frames.payloads[0].size() == part.size());
    const Result<Message> back = decode(frames.header.bytes, frames.payloads);
    REQUIRE(back.has_value());
    for (std::size_t i = 0; i < 200; ++i) {
        const GradientBlock& block = std::get<Push>(back->body).blocks[i];
        CHECK(block.gradient.bytes.data() == part.bytes.data() + i * 4096);
        CHECK(block.checksum == checksum_of(block.gradient.bytes));
    }
    // Also where the blocks are small, as long as they are all there is.
    CHECK(encode(push_with({part_of(part, 4, 8), part_of(part, 12, 8)}), false)
              .payloads[0]
              .bytes.data() == part.bytes.data() + 4);
}

TEST_CASE("codec: neighbours in memory under different owners are not joined") {
    const Payload whole = zeros(2 * kSmallBlockBytes);
    const Payload left = {std::make_shared<int>(1), whole.bytes.first(kSmallBlockBytes)};
    const Payload right = {std::make_shared<int>(2), whole.bytes.last(kSmallBlockBytes)};
    CHECK(encode(push_with({left, right}), false).payloads.size() == 2);
}

TEST_CASE("codec: a full message of large blocks among small ones keeps to the frame limit") {
    std::vector<Payload> blocks;
    for (std::size_t i = 0; i < kMostPayloadFrames - 2; ++i) {
        blocks.push_back(zeros(kSmallBlockBytes));
        blocks.push_back(zeros(16));
    }
    const Message message = push_with(blocks);
    const Frames frames = encode(message, false);
    CHECK(frames.payloads.size() == kMostPayloadFrames - 1);
    const Result<Message> back = decode(frames.header.bytes, frames.payloads);
    REQUIRE(back.has_value());
    CHECK(difference(message, *back) == "");
}

TEST_CASE("codec: checksums are computed where asked for, and kept where present") {
    Message message = push_with({zeros(8), zeros(16)});
    std::get<Push>(message.body).blocks[0].checksum = 5;
    const Result<Message> without = over_frames(message, false);
    const Result<Message> with = over_frames(message, true);
    REQUIRE(without.has_value());
    REQUIRE(with.has_value());
    CHECK(std::get<Push>(without->body).blocks[0].checksum == 5U);
    CHECK_FALSE(std::get<Push>(without->body).blocks[1].checksum);
    CHECK(std::get<Push>(with->body).blocks[0].checksum == 5U);
    CHECK(std::get<Push>(with->body).blocks[1].checksum == checksum_of(zeros(16).bytes));
}

TEST_CASE("codec: decoded blocks keep their frame alive, and only them") {
    Frames frames = encode(push_with({zeros(8), zeros(16)}), false);
    std::weak_ptr<const void> frame = frames.payloads[0].owner;
    {
        const Result<Message> back = decode(frames.header.bytes, std::move(frames.payloads));
        REQUIRE(back.has_value());
        CHECK_FALSE(frame.expired());
    }
    CHECK(frame.expired());
}

TEST_CASE("codec: headers and payloads decode at every address") {
    Random random(random_key(4, Purpose::test));
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        const Message message = sample_message(kind, Sample::mixed, random);
        const Frames frames = encode(message, true);
        for (std::size_t shift = 0; shift < 16; ++shift) {
            const auto shifted = [shift](std::span<const std::byte> bytes) {
                auto buffer = std::make_shared<AlignedBuffer>(bytes.size() + shift);
                std::memcpy(buffer->data() + shift, bytes.data(), bytes.size());
                return part_of(payload_of(buffer), shift, bytes.size());
            };
            std::vector<Payload> payloads;
            for (const Payload& payload : frames.payloads)
                payloads.push_back(shifted(payload.bytes));
            const Result<Message> back = decode(shifted(frames.header.bytes).bytes, payloads);
            INFO(kind_of(message.body) << " shifted by " << shift);
            REQUIRE(back.has_value());
            const Frames again = encode(*back, true);
            CHECK(std::ranges::equal(again.header.bytes, frames.header.bytes));
        }
    }
}

TEST_CASE("codec: a stream message's length is known from its first four bytes") {
    const std::vector<std::byte> bytes = encode_stream(push_with({zeros(8), zeros(100'000)}));
    CHECK(*stream_length(std::span(bytes).first(4)) == bytes.size());
    CHECK(bytes.size() > 100'008);
}

}  // namespace
}  // namespace detente
