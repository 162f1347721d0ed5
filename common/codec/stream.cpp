// Messages on byte streams: length of the rest, then frames, each with its length. All lengths are
// 4 bytes, little-endian.
#include <string>

#include "common/codec/codec.h"

namespace detente {
namespace {

constexpr std::size_t kLengthBytes = 4;
// The header, every payload frame, their lengths, and the padding between copied blocks.
constexpr std::size_t kMostStreamBytes = kMostHeaderBytes + kMostMessageBytes +
                                         16 * kMostBlocksPerMessage +
                                         (kMostPayloadFrames + 2) * kLengthBytes;

void append_length(std::vector<std::byte>& out, std::size_t length) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
        out.push_back(static_cast<std::byte>((length >> shift) & 0xFFU));
    }
}

// Requires: at least 4 bytes.
std::size_t length_at(std::span<const std::byte> bytes) {
    std::size_t length = 0;
    for (unsigned i = 0; i < kLengthBytes; ++i) {
        length |= static_cast<std::size_t>(bytes[i]) << (8 * i);
    }
    return length;
}

void append_frame(std::vector<std::byte>& out, std::span<const std::byte> frame) {
    append_length(out, frame.size());
    out.insert(out.end(), frame.begin(), frame.end());
}

Error truncated(std::size_t expected, std::size_t found) {
    return fail(ErrorCode::bad_message, "stream message: expected " + std::to_string(expected) +
                                            " more bytes, found " + std::to_string(found));
}

}  // namespace

std::vector<std::byte> encode_stream(const Message& message) {
    const Frames frames = encode(message, false);
    std::size_t rest = kLengthBytes + frames.header.size();
    for (const Payload& payload : frames.payloads) rest += kLengthBytes + payload.size();
    std::vector<std::byte> out;
    out.reserve(kLengthBytes + rest);
    append_length(out, rest);
    append_frame(out, frames.header.bytes);
    for (const Payload& payload : frames.payloads) append_frame(out, payload.bytes);
    return out;
}

Result<std::size_t> stream_length(std::span<const std::byte> first_four) {
    if (first_four.size() < kLengthBytes) return truncated(kLengthBytes, first_four.size());
    const std::size_t total = kLengthBytes + length_at(first_four);
    if (total > kMostStreamBytes) {
        return fail(ErrorCode::over_limit, "stream message of " + std::to_string(total) +
                                               " bytes, at most " +
                                               std::to_string(kMostStreamBytes) + " are allowed");
    }
    return total;
}

Result<Message> decode_stream(std::span<const std::byte> bytes) {
    const Result<std::size_t> total = stream_length(bytes);
    if (!total) return total.error();
    if (bytes.size() != *total) {
        return fail(ErrorCode::bad_message, "stream message says it has " + std::to_string(*total) +
                                                " bytes, found " + std::to_string(bytes.size()));
    }
    std::span<const std::byte> rest = bytes.subspan(kLengthBytes);
    std::span<const std::byte> header;
    std::vector<Payload> payloads;
    for (bool first = true; first || !rest.empty(); first = false) {
        if (rest.size() < kLengthBytes) return truncated(kLengthBytes, rest.size());
        const std::size_t length = length_at(rest);
        rest = rest.subspan(kLengthBytes);
        if (length > rest.size()) return truncated(length, rest.size());
        if (payloads.size() == kMostPayloadFrames) {
            return fail(ErrorCode::over_limit, "stream message has more than " +
                                                   std::to_string(kMostPayloadFrames) +
                                                   " payload frames");
        }
        if (first) {
            header = rest.first(length);
        } else {
            payloads.push_back(copy_of(rest.first(length)));
        }
        rest = rest.subspan(length);
    }
    return decode(header, std::move(payloads));
}

}  // namespace detente
