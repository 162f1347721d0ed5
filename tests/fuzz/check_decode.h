// What both fuzz programs ask of the decoder.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "common/codec/codec.h"

namespace detente {

[[noreturn]] inline void decode_broke(const char* what) {
    std::fprintf(stderr, "decoder: %s\n", what);
    std::abort();
}

// Reads every payload byte, so that a sanitizer sees a slice that leaves its frame.
inline std::size_t touched(const Body& body) {
    std::size_t sum = 0;
    const auto touch = [&sum](std::span<const std::byte> bytes) {
        for (const std::byte byte : bytes) sum += static_cast<std::size_t>(byte);
    };
    std::visit(
        [&touch](const auto& message) {
            if constexpr (requires { message.blocks[0].weights; }) {
                for (const WeightBlock& block : message.blocks) touch(block.weights.bytes);
            } else if constexpr (requires { message.blocks[0].gradient; }) {
                for (const GradientBlock& block : message.blocks) touch(block.gradient.bytes);
            }
        },
        body);
    return sum;
}

// Any bytes give a typed error or a message within bounds that can be sent on. Aborts otherwise.
// True if a message came out.
inline bool check_decode(std::span<const std::byte> bytes) {
    const Result<Message> result = decode_stream(bytes);
    if (!result) {
        if (result.error().text.empty()) decode_broke("an error without words");
        return false;
    }
    static volatile std::size_t sink = 0;  // keeps the reads
    sink = sink + touched(result->body);
    if (payload_bytes(result->body) > kMostMessageBytes) decode_broke("more bytes than allowed");
    const std::vector<std::byte> again = encode_stream(*result);
    const Result<Message> second = decode_stream(again);
    if (!second) decode_broke(second.error().text.c_str());
    if (encode_stream(*second) != again) decode_broke("a second trip changed the message");
    return true;
}

// Seals the header of a stream message anew where there is one, so that the fuzz gets past it.
inline void reseal_stream(std::span<std::byte> bytes) {
    std::uint32_t length = 0;
    if (bytes.size() < 8) return;
    std::memcpy(&length, bytes.data() + 4, sizeof(length));
    if (length >= kSealBytes && length <= bytes.size() - 8) reseal(bytes.subspan(8, length));
}

}  // namespace detente
