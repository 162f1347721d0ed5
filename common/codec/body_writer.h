// The sending side of the schema: one write() per kind of message. Inner part of the codec.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/codec/frames.h"
#include "schemas/wire_generated.h"

namespace detente::codec {

// What one thread reuses from message to message, so that encoding allocates only what it returns.
struct EncodeScratch {
    flatbuffers::FlatBufferBuilder builder{16U << 10U};
    std::vector<const Payload*> payloads;
    std::vector<Slice> slices;
};

// Writes one body into the scratch's builder. Lives on the stack of one encode.
class BodyWriter {
  public:
    BodyWriter(EncodeScratch& scratch, bool checksums)
        : scratch_(scratch), builder_(scratch.builder), checksums_(checksums) {}

    struct Written {
        wire::Body kind = wire::Body::NONE;
        flatbuffers::Offset<void> offset;
    };
    Written write(const Body& body);
    // Payload frames of what was written; empty before write().
    std::vector<Payload> take_frames() { return std::move(frames_); }

  private:
    using Text = flatbuffers::Offset<flatbuffers::String>;
    template <class T>
    using List = flatbuffers::Offset<flatbuffers::Vector<T>>;

    flatbuffers::Offset<wire::PullRequest> write(const PullRequest& in);
    flatbuffers::Offset<wire::PullReply> write(const PullReply& in);
    flatbuffers::Offset<wire::Push> write(const Push& in);
    flatbuffers::Offset<wire::PushReply> write(const PushReply& in);
    flatbuffers::Offset<wire::CancelNote> write(const CancelNote& in);
    flatbuffers::Offset<wire::CancelReply> write(const CancelReply& in);
    flatbuffers::Offset<wire::Initialise> write(const Initialise& in);
    flatbuffers::Offset<wire::InitialiseReply> write(const InitialiseReply& in);
    flatbuffers::Offset<wire::LeaseRequest> write(const LeaseRequest& in);
    flatbuffers::Offset<wire::LeaseReply> write(const LeaseReply& in);
    flatbuffers::Offset<wire::Farewell> write(const Farewell& in);
    flatbuffers::Offset<wire::FarewellReply> write(const FarewellReply& in);
    flatbuffers::Offset<wire::Refusal> write(const Refusal& in);
    flatbuffers::Offset<wire::StageNotice> write(const StageNotice& in);
    flatbuffers::Offset<wire::StageDecision> write(const StageDecision& in);
    flatbuffers::Offset<wire::StageReply> write(const StageReply& in);
    flatbuffers::Offset<wire::Wait> write(const Wait& in);
    flatbuffers::Offset<wire::Restart> write(const Restart& in);
    flatbuffers::Offset<wire::Hello> write(const Hello& in);
    flatbuffers::Offset<wire::Welcome> write(const Welcome& in);
    flatbuffers::Offset<wire::Ready> write(const Ready& in);
    flatbuffers::Offset<wire::Go> write(const Go& in);
    flatbuffers::Offset<wire::Status> write(const Status& in);
    flatbuffers::Offset<wire::PeerChange> write(const PeerChange& in);
    flatbuffers::Offset<wire::CheckpointRequest> write(const CheckpointRequest& in);
    flatbuffers::Offset<wire::CheckpointReply> write(const CheckpointReply& in);
    flatbuffers::Offset<wire::Stop> write(const Stop& in);
    flatbuffers::Offset<wire::Stopped> write(const Stopped& in);
    flatbuffers::Offset<wire::Endpoint> write(const Endpoint& in);
    flatbuffers::Offset<wire::PolicyChange> write(const PolicyChange& in);
    flatbuffers::Offset<wire::PolicyChanged> write(const PolicyChanged& in);
    flatbuffers::Offset<wire::FormGroup> write(const FormGroup& in);
    flatbuffers::Offset<wire::LostGroup> write(const LostGroup& in);

    Text text(const std::string& in);
    flatbuffers::Offset<wire::MethodState> method_state(const MethodState& in);
    List<const wire::WeightBlock*> list(const std::vector<WeightBlock>& in);
    List<const wire::GradientBlock*> list(const std::vector<GradientBlock>& in);
    List<const wire::BatchRange*> list(const std::vector<BatchRange>& in);
    List<std::uint64_t> list(const std::vector<std::uint64_t>& in);
    List<double> list(const std::vector<double>& in);
    List<std::uint32_t> workers(const std::vector<WorkerId>& in);
    std::uint64_t checksum(const std::optional<std::uint64_t>& known, const Payload& bytes) const;

    EncodeScratch& scratch_;
    flatbuffers::FlatBufferBuilder& builder_;
    bool checksums_;
    std::vector<Payload> frames_;
};

}  // namespace detente::codec
