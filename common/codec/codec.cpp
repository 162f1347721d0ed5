#include "common/codec/codec.h"

#include <cstring>
#include <limits>
#include <string>

#include "common/checksum.h"
#include "common/codec/body_reader.h"
#include "common/codec/body_writer.h"
#include "common/invariant.h"
#include "common/wire_version.h"

namespace detente {
namespace {

constexpr std::size_t kKeptScratchBytes = 256U << 10U;
// Message → StageDecision → CheckpointRequest → WorkerMethod → MethodState.
constexpr flatbuffers::uoffset_t kMostDepth = 5;
constexpr flatbuffers::uoffset_t kMostTables = kMostListEntries + 16;

wire::Envelope wire_of(const Envelope& in, Encoding encoding) {
    return {in.generation.value,
            in.build,
            in.tasks.bits,
            in.deadline.count(),
            in.handled.count(),
            in.from.index,
            in.to.index,
            in.incarnation.value,
            in.shard_epoch.value,
            static_cast<std::uint8_t>(in.from.role),
            static_cast<std::uint8_t>(in.to.role),
            static_cast<std::uint8_t>(in.request_class),
            static_cast<std::uint8_t>(encoding)};
}

Payload sealed_copy(const std::uint8_t* bytes, std::size_t size) {
    auto owner = std::make_shared_for_overwrite<std::byte[]>(size + kSealBytes);
    std::memcpy(owner.get(), bytes, size);
    const std::span<std::byte> span{owner.get(), size + kSealBytes};
    reseal(span);
    return {std::move(owner), span};
}

// Little-endian like all else here (FlatBuffers' scalars).
std::uint64_t seal_of(std::span<const std::byte> header) {
    std::uint64_t seal = 0;
    std::memcpy(&seal, header.last(kSealBytes).data(), kSealBytes);
    return flatbuffers::EndianScalar(seal);
}

// Header bytes at an address FlatBuffers may read them from. Frames up to 8 KiB arrive at odd
// addresses; the copy goes to memory this thread keeps from message to message.
class AlignedHeader {
  public:
    explicit AlignedHeader(std::span<const std::byte> header) : bytes_(header) {
        if (reinterpret_cast<std::uintptr_t>(header.data()) % 16 == 0) return;
        if (kept().size() < header.size()) kept() = AlignedBuffer(header.size());
        std::memcpy(kept().data(), header.data(), header.size());
        bytes_ = {kept().data(), header.size()};
    }
    ~AlignedHeader() {
        if (kept().size() > kKeptScratchBytes) kept() = AlignedBuffer();
    }
    AlignedHeader(const AlignedHeader&) = delete;
    AlignedHeader& operator=(const AlignedHeader&) = delete;
    const std::uint8_t* data() const {
        return reinterpret_cast<const std::uint8_t*>(bytes_.data());
    }
    std::size_t size() const { return bytes_.size(); }
    std::span<const std::byte> bytes() const { return bytes_; }

  private:
    static AlignedBuffer& kept() {
        thread_local AlignedBuffer buffer;
        return buffer;
    }
    std::span<const std::byte> bytes_;
};

flatbuffers::Verifier verifier_of(const AlignedHeader& header) {
    return flatbuffers::Verifier(header.data(), header.size(), kMostDepth, kMostTables);
}

// Only what is needed to read the first field: the rest may be laid out as another version likes.
std::optional<Error> check_version(const AlignedHeader& header, std::uint64_t seal) {
    if (header.size() < 2 * sizeof(flatbuffers::uoffset_t) ||
        !flatbuffers::BufferHasIdentifier(header.data(), wire::MessageIdentifier())) {
        return fail(ErrorCode::bad_message, "header frame of " + std::to_string(header.size()) +
                                                " bytes does not begin as a message of ours");
    }
    if (checksum_of(header.bytes()) != seal) {
        return fail(ErrorCode::bad_message,
                    "header frame was altered on its way (wrong checksum), or is of a build from "
                    "before headers had one");
    }
    flatbuffers::Verifier verifier = verifier_of(header);
    const flatbuffers::uoffset_t root = verifier.VerifyOffset(0);
    const auto* table = reinterpret_cast<const flatbuffers::Table*>(header.data() + root);
    if (root == 0 || !table->VerifyTableStart(verifier) ||
        !table->VerifyField<std::uint32_t>(verifier, wire::Message::VT_WIRE_VERSION, 4)) {
        return fail(ErrorCode::bad_message, "header frame is truncated or altered");
    }
    const auto version = table->GetField<std::uint32_t>(wire::Message::VT_WIRE_VERSION, 0);
    if (version == kWireVersion) return {};
    return fail(ErrorCode::wrong_build, "peer speaks wire version " + std::to_string(version) +
                                            ", this build speaks " + std::to_string(kWireVersion) +
                                            "; run the same build of detente on both hosts");
}

Envelope read_envelope(const wire::Envelope& in, codec::BodyReader& reader) {
    Envelope out;
    out.from = {reader.one_of(in.from_role(), Role::evaluator, "sender's role"), in.from_index()};
    out.to = {reader.one_of(in.to_role(), Role::evaluator, "receiver's role"), in.to_index()};
    out.incarnation = {in.incarnation()};
    out.generation = {in.generation()};
    out.build = in.build();
    out.shard_epoch = {in.shard_epoch()};
    out.request_class = reader.one_of(in.request_class(), RequestClass::control, "request class");
    out.tasks = {in.tasks()};
    out.deadline = Nanos{in.deadline_ns()};
    if (in.deadline_ns() < 0) reader.refuse(ErrorCode::bad_message, "deadline is negative");
    out.handled = Nanos{in.handled_ns()};
    if (in.handled_ns() < 0) reader.refuse(ErrorCode::bad_message, "time taken is negative");
    if (reader.one_of(in.encoding(), Encoding::rows, "encoding") == Encoding::rows) {
        reader.refuse(ErrorCode::not_supported,
                      "blocks encoded as rows are not supported yet; send them dense");
    }
    return out;
}

std::string origin_of(const Envelope& envelope, wire::Body kind) {
    return std::string(wire::EnumNameBody(kind)) + " from " + to_string(envelope.from) + ": ";
}

}  // namespace

Frames encode(const Message& message, bool checksums) {
    invariant(payload_bytes(message.body) <= kMostMessageBytes,
              "a message carries at most kMostMessageBytes of blocks");
    thread_local codec::EncodeScratch scratch;
    flatbuffers::FlatBufferBuilder& builder = scratch.builder;
    builder.Clear();
    codec::BodyWriter writer(scratch, checksums);
    const auto body = writer.write(message.body);
    const Push* push = std::get_if<Push>(&message.body);
    const wire::Envelope envelope =
        wire_of(message.envelope, push == nullptr ? Encoding::dense : push->encoding);
    wire::FinishMessageBuffer(
        builder, wire::CreateMessage(builder, kWireVersion, &envelope, body.kind, body.offset));
    Frames frames{sealed_copy(builder.GetBufferPointer(), builder.GetSize()), writer.take_frames()};
    if (builder.GetSize() > kKeptScratchBytes) builder.Reset();
    return frames;
}

void reseal(std::span<std::byte> header) {
    const std::size_t size = header.size() - kSealBytes;
    const std::uint64_t seal = flatbuffers::EndianScalar(checksum_of(header.first(size)));
    std::memcpy(header.data() + size, &seal, kSealBytes);
}

Result<Message> decode(std::span<const std::byte> header, std::vector<Payload> payloads) {
    if (header.size() > kMostHeaderBytes) {
        return fail(ErrorCode::over_limit, "header frame of " + std::to_string(header.size()) +
                                               " bytes, at most " +
                                               std::to_string(kMostHeaderBytes) + " are allowed");
    }
    if (payloads.size() > kMostPayloadFrames) {
        return fail(ErrorCode::over_limit, std::to_string(payloads.size()) +
                                               " payload frames, at most " +
                                               std::to_string(kMostPayloadFrames) + " are allowed");
    }
    if (header.size() < kSealBytes) {
        return fail(ErrorCode::bad_message, "header frame of " + std::to_string(header.size()) +
                                                " bytes does not begin as a message of ours");
    }
    const AlignedHeader aligned(header.first(header.size() - kSealBytes));
    if (std::optional<Error> error = check_version(aligned, seal_of(header))) {
        return *std::move(error);
    }
    flatbuffers::Verifier verifier = verifier_of(aligned);
    if (!wire::VerifyMessageBuffer(verifier)) {
        return fail(ErrorCode::bad_message, "header frame of " + std::to_string(header.size()) +
                                                " bytes is truncated, altered, or lists too much");
    }
    const wire::Message& in = *wire::GetMessage(aligned.data());
    if (in.envelope() == nullptr) {
        return fail(ErrorCode::bad_message, "header frame has no envelope");
    }
    codec::BodyReader reader(payloads, aligned.size());
    Message message;
    message.envelope = read_envelope(*in.envelope(), reader);
    message.body = reader.read(in);
    if (reader.error()) {
        return fail(reader.error()->code,
                    origin_of(message.envelope, in.body_type()) + reader.error()->text);
    }
    return message;
}

}  // namespace detente
