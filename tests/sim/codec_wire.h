// A simulated network whose messages travel as bytes: encoded, perhaps with one byte altered, and
// decoded, as between two hosts.
#pragma once

#include <catch2/catch.hpp>
#include <memory>

#include "common/checksum.h"
#include "common/codec/codec.h"
#include "common/random.h"
#include "common/runtime/sim/world.h"

namespace detente::test {

// What became of altered messages. None of them may be taken for good.
struct WireCounts {
    std::uint64_t carried = 0;
    std::uint64_t refused = 0;  // the codec noticed
    std::uint64_t marked = 0;   // a block's checksum is wrong: the receiver will notice
    std::uint64_t padding = 0;  // a byte between two blocks, which nobody reads
};

inline std::vector<std::byte> bytes_of(const Payload& payload) {
    return {payload.bytes.begin(), payload.bytes.end()};
}

inline bool blocks_intact(const Body& body) {
    bool intact = true;
    const auto check = [&](const Payload& payload, const std::optional<std::uint64_t>& checksum) {
        intact = intact && checksum && checksum_of(payload.bytes) == *checksum;
    };
    std::visit(
        [&](const auto& message) {
            if constexpr (requires { message.blocks[0].weights; }) {
                for (const auto& block : message.blocks) check(block.weights, block.checksum);
            } else if constexpr (requires { message.blocks[0].gradient; }) {
                for (const auto& block : message.blocks) check(block.gradient, block.checksum);
            }
        },
        body);
    return intact;
}

inline sim::Wire codec_wire(const std::shared_ptr<WireCounts>& counts) {
    return [counts](const Message& message, bool corrupt,
                    std::uint64_t key) -> std::optional<Message> {
        const Frames sent = encode(message, true);
        std::vector<std::vector<std::byte>> frames = {bytes_of(sent.header)};
        std::size_t total = frames[0].size();
        for (const Payload& payload : sent.payloads) {
            frames.push_back(bytes_of(payload));
            total += payload.size();
        }
        ++counts->carried;
        if (corrupt) {
            Random random(key);
            std::size_t at = random.below(total);
            const auto mask = static_cast<std::byte>(1 + random.below(255));
            for (std::vector<std::byte>& frame : frames) {
                if (at < frame.size()) {
                    frame[at] ^= mask;
                    break;
                }
                at -= frame.size();
            }
        }
        std::vector<Payload> payloads;
        for (std::size_t i = 1; i < frames.size(); ++i) payloads.push_back(copy_of(frames[i]));
        Result<Message> arrived = decode(frames[0], std::move(payloads));
        if (!corrupt) {
            INFO((arrived ? "" : arrived.error().text));
            REQUIRE(arrived.has_value());
            REQUIRE(blocks_intact(arrived->body));
            return *std::move(arrived);
        }
        if (!arrived) {
            ++counts->refused;
            return std::nullopt;
        }
        if (!blocks_intact(arrived->body)) {
            ++counts->marked;
        } else {
            // Nothing that is read may differ.
            REQUIRE(encode_stream(*arrived) ==
                    encode_stream(*decode_stream(encode_stream(message))));
            ++counts->padding;
        }
        return *std::move(arrived);
    };
}

}  // namespace detente::test
