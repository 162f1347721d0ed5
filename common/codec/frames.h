// How payload bytes are dealt out to frames, and how a receiver finds them again. Inner part of the
// codec.
//
// Blocks that lie one after the other in memory under one owner form a run. A run of at least
// kSmallBlockBytes (a single large block, or a push part that combine wrote) is a frame of its own,
// not copied; so is a run of several blocks that is all the message has. Everything else is copied
// into one frame, each block at the next multiple of 16. Hence a message has at most
// kMostPayloadFrames frames.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/codec/codec.h"

namespace detente::codec {

// Offsets within a copied frame, so that vector loads of a block do not straddle lines needlessly.
inline constexpr std::size_t kBlockAlignment = 16;

// The bytes of one block: [offset, offset + length) of frame `frame`. Empty blocks are all 0.
struct Slice {
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
    std::uint16_t frame = 0;
};

// Fills `slices` with one slice per block and returns the frames.
// Requires: the sum of sizes ≤ kMostMessageBytes.
std::vector<Payload> lay_out(std::span<const Payload* const> blocks, std::vector<Slice>& slices);

// The receiving side: hands out each slice once, in order, so that no byte of a frame belongs to
// two blocks and none to nobody. Lives on the stack of one decode.
class FrameCursor {
  public:
    // Requires: frames.size() ≤ kMostPayloadFrames; `frames` outlives the cursor.
    explicit FrameCursor(std::span<const Payload> frames) : frames_(frames) {}

    // False if the slice lies outside its frame, overlaps the one before, or leaves a gap that no
    // encoder leaves; then why() says so. `bytes` shares the frame's owner.
    bool take(Slice slice, Payload& bytes);
    // False if some frame was not used up.
    bool finished();
    const std::string& why() const { return why_; }
    std::uint64_t taken_bytes() const { return taken_bytes_; }

  private:
    bool refuse(Slice slice, const char* what);

    std::span<const Payload> frames_;
    std::array<std::uint64_t, kMostPayloadFrames> next_{};
    std::uint64_t taken_bytes_ = 0;
    std::string why_;
};

}  // namespace detente::codec
