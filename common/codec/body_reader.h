// The receiving side of the schema: one read() per kind of message, and every bound that the
// FlatBuffers verifier does not know. Inner part of the codec.
//
// The first thing found wrong is kept and the rest is read as if empty; the caller looks once, at
// the end. Nothing here throws but std::bad_alloc, and no allocation exceeds a small multiple of
// the header's size: lists are bounded by their own bytes, texts (which a hostile header can share
// between a thousand tables) by a budget of the header's bytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/codec/frames.h"
#include "schemas/wire_generated.h"

namespace detente::codec {

// Reads one body. Lives on the stack of one decode.
class BodyReader {
  public:
    // Requires: `frames` outlives the reader; at most kMostPayloadFrames of them.
    BodyReader(std::span<const Payload> frames, std::size_t header_bytes)
        : cursor_(frames), text_budget_bytes_(header_bytes) {}

    // Requires: the FlatBuffers verifier accepted `message`. The result means nothing if error()
    // says something afterwards.
    Body read(const wire::Message& message);
    // A value of an enumeration, refused if beyond `last`.
    template <class Enum>
    Enum one_of(std::uint8_t value, Enum last, const char* what) {
        if (value <= static_cast<std::uint8_t>(last)) return static_cast<Enum>(value);
        refuse(ErrorCode::bad_message, std::string(what) + " " + std::to_string(value) +
                                           " is beyond the last known, " +
                                           std::to_string(static_cast<unsigned>(last)));
        return Enum{};
    }
    void refuse(ErrorCode code, std::string text) {
        if (!error_) error_ = Error{code, std::move(text)};
    }
    const std::optional<Error>& error() const { return error_; }

  private:
    PullRequest read(const wire::PullRequest& in);
    PullReply read(const wire::PullReply& in);
    Push read(const wire::Push& in);
    PushReply read(const wire::PushReply& in);
    CancelNote read(const wire::CancelNote& in);
    CancelReply read(const wire::CancelReply& in);
    Initialise read(const wire::Initialise& in);
    InitialiseReply read(const wire::InitialiseReply& in);
    LeaseRequest read(const wire::LeaseRequest& in);
    LeaseReply read(const wire::LeaseReply& in);
    Farewell read(const wire::Farewell& in);
    FarewellReply read(const wire::FarewellReply& in);
    Refusal read(const wire::Refusal& in);
    StageNotice read(const wire::StageNotice& in);
    StageDecision read(const wire::StageDecision& in);
    StageReply read(const wire::StageReply& in);
    Wait read(const wire::Wait& in);
    Restart read(const wire::Restart& in);
    Hello read(const wire::Hello& in);
    Welcome read(const wire::Welcome& in);
    Ready read(const wire::Ready& in);
    Go read(const wire::Go& in);
    Status read(const wire::Status& in);
    PeerChange read(const wire::PeerChange& in);
    CheckpointRequest read(const wire::CheckpointRequest& in);
    CheckpointReply read(const wire::CheckpointReply& in);
    Stop read(const wire::Stop& in);
    Stopped read(const wire::Stopped& in);
    PolicyChange read(const wire::PolicyChange& in);
    PolicyChanged read(const wire::PolicyChanged& in);
    FormGroup read(const wire::FormGroup& in);
    LostGroup read(const wire::LostGroup& in);

    // Entries of a list, 0 if absent or refused: too many, or not aligned (which the verifier does
    // not check of vectors).
    template <class List>
    std::size_t entries(const List* in, std::size_t most, std::size_t alignment, const char* what);
    std::string text(const flatbuffers::String* in, const char* what);
    std::vector<WeightBlock> weights(const flatbuffers::Vector<const wire::WeightBlock*>* in);
    std::vector<GradientBlock> gradients(const flatbuffers::Vector<const wire::GradientBlock*>* in);
    std::vector<BlockVerdict> verdicts(const flatbuffers::Vector<const wire::BlockVerdict*>* in);
    std::vector<BatchRange> ranges(const flatbuffers::Vector<const wire::BatchRange*>* in);
    BatchRange range(const wire::BatchRange& in);
    Endpoint endpoint(const wire::Endpoint* in);
    MethodState method_state(const wire::MethodState* in);
    NodeId node(std::uint8_t role, std::uint32_t index);
    ErrorCode error_code(std::uint8_t value);
    float finite(float value, const char* what);
    std::vector<WorkerId> workers(const flatbuffers::Vector<std::uint32_t>* in);
    void part_of(std::uint32_t part, std::uint32_t parts);
    // Refuses a list that names a block twice; `id_of(i)` is the block of its entry i.
    template <class IdOf>
    void distinct(std::size_t entries, const char* what, IdOf id_of);
    template <class Block>
    Payload slice_of(const Block& block);

    FrameCursor cursor_;
    std::size_t text_budget_bytes_;
    std::optional<Error> error_;
};

template <class List>
std::size_t BodyReader::entries(const List* in, std::size_t most, std::size_t alignment,
                                const char* what) {
    if (in == nullptr || error_) return 0;
    if (in->size() > most) {
        refuse(ErrorCode::over_limit, std::string(what) + ": at most " + std::to_string(most) +
                                          " entries are allowed, found " +
                                          std::to_string(in->size()));
        return 0;
    }
    if (reinterpret_cast<std::uintptr_t>(in->Data()) % alignment != 0 && in->size() != 0) {
        refuse(ErrorCode::bad_message, std::string(what) + ": list is not aligned to " +
                                           std::to_string(alignment) + " bytes");
        return 0;
    }
    return in->size();
}

template <class IdOf>
void BodyReader::distinct(std::size_t entries, const char* what, IdOf id_of) {
    bool ascending = true;  // as our own senders list them
    for (std::size_t i = 1; i < entries && ascending; ++i) ascending = id_of(i - 1) < id_of(i);
    if (ascending) return;
    std::vector<std::uint64_t> ids(entries);
    for (std::size_t i = 0; i < entries; ++i) ids[i] = id_of(i);
    std::sort(ids.begin(), ids.end());
    const auto twice = std::adjacent_find(ids.begin(), ids.end());
    if (twice == ids.end()) return;
    refuse(ErrorCode::bad_message,
           std::string(what) + ": block " + std::to_string(*twice) + " is listed twice");
}

}  // namespace detente::codec
