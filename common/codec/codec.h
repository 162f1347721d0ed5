// Bytes ↔ messages: the only place that reads bytes off the wire, and it verifies before it reads.
// A message is one FlatBuffers header frame (schemas/wire.fbs) and raw payload frames: blocks under
// kSmallBlockBytes travel one after the other in one frame, a larger one in a frame of its own;
// blocks that lie one after the other in memory under one owner share a frame without a copy.
//
// Pure functions; any thread. Each thread keeps scratch memory between calls, at most 256 KiB.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "common/conflict/cosine_bins.h"
#include "common/messages.h"
#include "common/payload.h"
#include "common/result.h"

namespace detente {

inline constexpr std::size_t kSmallBlockBytes = 64U << 10U;
inline constexpr std::size_t kMostMessageBytes = 4U << 20U;  // payload bytes of one message
inline constexpr std::size_t kMostHeaderBytes = 8U << 20U;   // Welcome carries job and model
inline constexpr std::size_t kMostBlocksPerMessage = 1U << 16U;
inline constexpr std::size_t kSealBytes = 8;  // XXH3 of the header frame, at its end
inline constexpr std::size_t kMostTextBytes = 4U << 20U;
inline constexpr std::size_t kMostListEntries = 1U << 14U;  // peers, values, lease ranges, …
inline constexpr std::size_t kMostCosineBins = kCosineBins * kMaxTasks * (kMaxTasks - 1) / 2;
inline constexpr std::size_t kMostMethodValues = 1U << 18U;
// Every frame but one holds at least kSmallBlockBytes, or is the only one. A transport may drop a
// message on the frame after this many.
inline constexpr std::size_t kMostPayloadFrames = kMostMessageBytes / kSmallBlockBytes + 1;

struct Frames {
    Payload header;
    std::vector<Payload> payloads;  // large blocks are the message's own payloads, not copied
};

// With `checksums`, blocks without one get theirs computed. Requires: payload_bytes(message.body) ≤
// kMostMessageBytes.
Frames encode(const Message& message, bool checksums);

// Copies the header to aligned storage, verifies it, then reads it. Block payloads of the result
// are views into `payloads` and keep them alive. Checksums are carried, not checked: the receiver
// checks block by block right before use (common/checksum.h). The header's own seal is checked
// here: an altered step or version number would pass every other check. Errors: bad_message
// (garbage, truncated, lengths that lie), wrong_build (wire version), over_limit, not_supported
// (encoding rows).
Result<Message> decode(std::span<const std::byte> header, std::vector<Payload> payloads);

// Seals a header frame anew; for tests that write into one. Requires: at least kSealBytes.
void reseal(std::span<std::byte> header);

// One contiguous buffer per message, for byte streams (the control connection, tests): 4-byte
// little-endian length of the rest, then frames, each with its length.
std::vector<std::byte> encode_stream(const Message& message);
// Bytes a stream message occupies given its first 4 bytes; over_limit if larger than allowed.
Result<std::size_t> stream_length(std::span<const std::byte> first_four);
// Requires: exactly one stream message.
Result<Message> decode_stream(std::span<const std::byte> bytes);

}  // namespace detente
