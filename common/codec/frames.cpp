#include "common/codec/frames.h"

#include <cstring>
#include <memory>

#include "common/invariant.h"

namespace detente::codec {
namespace {

std::uint64_t aligned(std::uint64_t offset) {
    return (offset + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

bool same_owner(const Payload& a, const Payload& b) {
    return !a.owner.owner_before(b.owner) && !b.owner.owner_before(a.owner);
}

// Blocks [first, last) lie one after the other under one owner; empty ones between do not count.
struct Run {
    std::size_t first = 0;
    std::size_t last = 0;
    std::size_t blocks = 0;  // not empty
    const Payload* head = nullptr;
    std::uint64_t bytes = 0;
};

Run run_from(std::span<const Payload* const> blocks, std::size_t first) {
    Run run{.first = first, .last = first};
    for (; run.last < blocks.size(); ++run.last) {
        const Payload& block = *blocks[run.last];
        if (block.empty()) continue;
        if (run.head == nullptr) {
            run.head = &block;
        } else if (block.bytes.data() != run.head->bytes.data() + run.bytes ||
                   !same_owner(block, *run.head)) {
            break;
        }
        ++run.blocks;
        run.bytes += block.size();
    }
    return run;
}

// Frame of the blocks whose slices say so, padding zeroed: no stray memory leaves the process.
Payload copied_frame(std::span<const Payload* const> blocks, std::span<const Slice> slices,
                     std::uint16_t frame, std::uint64_t frame_bytes) {
    auto buffer = std::make_shared<AlignedBuffer>(frame_bytes);
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (slices[i].frame != frame || slices[i].length == 0) continue;
        std::memset(buffer->data() + end, 0, slices[i].offset - end);
        std::memcpy(buffer->data() + slices[i].offset, blocks[i]->bytes.data(), slices[i].length);
        end = std::uint64_t{slices[i].offset} + slices[i].length;
    }
    return payload_of(std::move(buffer));
}

}  // namespace

std::vector<Payload> lay_out(std::span<const Payload* const> blocks, std::vector<Slice>& slices) {
    slices.assign(blocks.size(), Slice{});
    std::vector<Payload> frames;
    bool copies = false;
    std::uint16_t copied = 0;  // index of the frame of copied blocks
    std::uint64_t copied_bytes = 0;
    for (Run run; run.last < blocks.size();) {
        run = run_from(blocks, run.last);
        if (run.bytes == 0) continue;
        const bool is_all = run.first == 0 && run.last == blocks.size() && run.blocks > 1;
        const bool own_frame = is_all || run.bytes >= kSmallBlockBytes;
        if (!own_frame && !copies) {
            copies = true;
            copied = static_cast<std::uint16_t>(frames.size());
            frames.emplace_back();
        }
        std::uint64_t offset = 0;
        for (std::size_t i = run.first; i < run.last; ++i) {
            const std::uint64_t bytes = blocks[i]->size();
            if (bytes == 0) continue;
            if (!own_frame) offset = aligned(copied_bytes);
            slices[i].offset = static_cast<std::uint32_t>(offset);
            slices[i].length = static_cast<std::uint32_t>(bytes);
            slices[i].frame = own_frame ? static_cast<std::uint16_t>(frames.size()) : copied;
            offset += bytes;
            if (!own_frame) copied_bytes = offset;
        }
        if (own_frame) frames.push_back({run.head->owner, {run.head->bytes.data(), run.bytes}});
    }
    if (copies) frames[copied] = copied_frame(blocks, slices, copied, copied_bytes);
    invariant(frames.size() <= kMostPayloadFrames, "a message has few payload frames");
    return frames;
}

bool FrameCursor::take(Slice slice, Payload& bytes) {
    if (slice.length == 0) {
        if (slice.offset == 0 && slice.frame == 0) return true;
        return refuse(slice, "an empty block has frame 0 and offset 0");
    }
    if (slice.frame >= frames_.size()) return refuse(slice, "there is no such frame");
    const Payload& frame = frames_[slice.frame];
    const std::uint64_t end = std::uint64_t{slice.offset} + slice.length;
    if (end > frame.size()) return refuse(slice, "it must end within the frame");
    std::uint64_t& next = next_[slice.frame];
    if (slice.offset < next) return refuse(slice, "it overlaps the block before");
    if (slice.offset - next >= kBlockAlignment) {
        return refuse(slice, "it leaves a gap after the block before");
    }
    next = end;
    taken_bytes_ += slice.length;
    bytes = {frame.owner, frame.bytes.subspan(slice.offset, slice.length)};
    return true;
}

bool FrameCursor::finished() {
    for (std::size_t i = 0; i < frames_.size(); ++i) {
        if (next_[i] == frames_[i].size() && next_[i] != 0) continue;
        why_ = "payload frame " + std::to_string(i) + " has " + std::to_string(frames_[i].size()) +
               " bytes, its blocks fill " + std::to_string(next_[i]);
        return false;
    }
    return true;
}

bool FrameCursor::refuse(Slice slice, const char* what) {
    why_ = "bytes [" + std::to_string(slice.offset) + ", +" + std::to_string(slice.length) +
           ") of frame " + std::to_string(slice.frame) + ": " + what + " (" +
           std::to_string(frames_.size()) + " frames";
    if (slice.frame < frames_.size()) {
        why_ += ", this one of " + std::to_string(frames_[slice.frame].size()) + " bytes";
    }
    why_ += ")";
    return false;
}

}  // namespace detente::codec
