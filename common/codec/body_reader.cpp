#include "common/codec/body_reader.h"

#include <cmath>
#include <limits>

namespace detente::codec {
namespace {

constexpr ErrorCode kLastErrorCode = ErrorCode::internal;

}  // namespace

// ---- parts ----

std::string BodyReader::text(const flatbuffers::String* in, const char* what) {
    if (in == nullptr || error_) return {};
    if (in->size() > kMostTextBytes) {
        refuse(ErrorCode::over_limit,
               std::string(what) + ": at most " + std::to_string(kMostTextBytes) +
                   " bytes of text are allowed, found " + std::to_string(in->size()));
        return {};
    }
    if (in->size() > text_budget_bytes_) {
        refuse(ErrorCode::bad_message, std::string(what) + ": texts share their bytes");
        return {};
    }
    text_budget_bytes_ -= in->size();
    return in->str();
}

template <class Block>
Payload BodyReader::slice_of(const Block& block) {
    Payload bytes;
    if (!error_ && !cursor_.take({block.offset(), block.length(), block.frame()}, bytes)) {
        refuse(ErrorCode::bad_message,
               "block " + std::to_string(block.block()) + ": " + cursor_.why());
    }
    return bytes;
}

std::vector<WeightBlock> BodyReader::weights(
    const flatbuffers::Vector<const wire::WeightBlock*>* in) {
    const std::size_t count =
        entries(in, kMostBlocksPerMessage, alignof(wire::WeightBlock), "blocks");
    distinct(count, "blocks", [in](std::size_t i) { return in->Get(i)->block(); });
    std::vector<WeightBlock> out;
    out.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::WeightBlock& block = *in->Get(i);
        WeightBlock& to = out.emplace_back();
        to.block = {block.block()};
        to.epoch = {block.epoch()};
        to.version = {block.version()};
        to.weights = slice_of(block);
        if (block.has_checksum()) to.checksum = block.checksum();
    }
    return out;
}

std::vector<GradientBlock> BodyReader::gradients(
    const flatbuffers::Vector<const wire::GradientBlock*>* in) {
    // Every one of the 64 bits of a task set may be a task; owners are the shard's to check.
    static_assert(kMaxTasks == 64);
    const std::size_t count =
        entries(in, kMostBlocksPerMessage, alignof(wire::GradientBlock), "blocks");
    distinct(count, "blocks", [in](std::size_t i) { return in->Get(i)->block(); });
    std::vector<GradientBlock> out;
    out.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::GradientBlock& block = *in->Get(i);
        GradientBlock& to = out.emplace_back();
        to.block = {block.block()};
        to.tasks = {block.tasks()};
        to.epoch = {block.epoch()};
        to.base = {block.base()};
        to.gradient = slice_of(block);
        if (block.has_checksum()) to.checksum = block.checksum();
    }
    return out;
}

std::vector<BlockVerdict> BodyReader::verdicts(
    const flatbuffers::Vector<const wire::BlockVerdict*>* in) {
    const std::size_t count =
        entries(in, kMostBlocksPerMessage, alignof(wire::BlockVerdict), "verdicts");
    distinct(count, "verdicts", [in](std::size_t i) { return in->Get(i)->block(); });
    std::vector<BlockVerdict> out;
    out.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::BlockVerdict& verdict = *in->Get(i);
        BlockVerdict& to = out.emplace_back();
        to.block = {verdict.block()};
        to.verdict = one_of(verdict.verdict(), Verdict::lost, "verdict");
        to.advice = one_of(verdict.advice(), Advice::compensate, "advice");
        to.reason = error_code(verdict.reason());
        to.staleness = verdict.staleness();
        to.step_scale = finite(verdict.step_scale(), "step scale");
        to.epoch = {verdict.epoch()};
        to.version = {verdict.version()};
    }
    return out;
}

BatchRange BodyReader::range(const wire::BatchRange& in) {
    if (in.count() > std::numeric_limits<std::uint32_t>::max() - in.first()) {
        refuse(ErrorCode::bad_message, "batches [" + std::to_string(in.first()) + ", +" +
                                           std::to_string(in.count()) +
                                           ") end beyond the largest batch number");
    }
    return {in.data_epoch(), in.first(), in.count(), {in.tasks()}};
}

std::vector<BatchRange> BodyReader::ranges(const flatbuffers::Vector<const wire::BatchRange*>* in) {
    const std::size_t count =
        entries(in, kMostListEntries, alignof(wire::BatchRange), "batch ranges");
    std::vector<BatchRange> out;
    out.reserve(count);
    for (std::size_t i = 0; i < count; ++i) out.push_back(range(*in->Get(i)));
    return out;
}

NodeId BodyReader::node(std::uint8_t role, std::uint32_t index) {
    return {one_of(role, Role::evaluator, "role"), index};
}

ErrorCode BodyReader::error_code(std::uint8_t value) {
    return one_of(value, kLastErrorCode, "error code");
}

float BodyReader::finite(float value, const char* what) {
    if (!std::isfinite(value)) {
        refuse(ErrorCode::not_finite, std::string(what) + " is not a finite number");
    }
    return value;
}

void BodyReader::part_of(std::uint32_t part, std::uint32_t parts) {
    if (part < parts) return;
    refuse(ErrorCode::bad_message, "part " + std::to_string(part) + " of " + std::to_string(parts) +
                                       " parts does not exist");
}

Endpoint BodyReader::endpoint(const wire::Endpoint* in) {
    if (in == nullptr) {
        refuse(ErrorCode::bad_message, "endpoint is missing");
        return {};
    }
    Endpoint out;
    out.node = node(in->role(), in->index());
    out.incarnation = {in->incarnation()};
    out.tcp = text(in->tcp(), "tcp address");
    out.ipc = text(in->ipc(), "ipc address");
    out.host = text(in->host(), "host");
    return out;
}

// ---- worker and shard ----

PullRequest BodyReader::read(const wire::PullRequest& in) {
    const auto* ids = in.blocks();
    const std::size_t count = entries(ids, kMostBlocksPerMessage, alignof(std::uint64_t), "blocks");
    distinct(count, "blocks", [ids](std::size_t i) { return ids->Get(i); });
    PullRequest out;
    out.step = {in.step()};
    out.opens = in.opens();
    out.request = in.request();
    out.acknowledged = {in.acknowledged()};
    out.cut = in.cut();
    out.blocks.reserve(count);
    for (std::size_t i = 0; i < count; ++i) out.blocks.push_back({ids->Get(i)});
    return out;
}

PullReply BodyReader::read(const wire::PullReply& in) {
    part_of(in.part(), in.parts());
    return {{in.step()}, in.request(),      {in.part()},
            in.parts(),  in.credit_bytes(), weights(in.blocks())};
}

Push BodyReader::read(const wire::Push& in) {
    part_of(in.part(), in.parts());
    Push out;
    out.step = {in.step()};
    out.part = {in.part()};
    out.parts = in.parts();
    out.opens = {in.opens()};
    out.acknowledged = {in.acknowledged()};
    if (in.batch() != nullptr) out.batch = range(*in.batch());
    out.samples = in.samples();
    out.gradient_hash = in.gradient_hash();
    out.blocks = gradients(in.blocks());
    return out;
}

PushReply BodyReader::read(const wire::PushReply& in) {
    return {{in.step()}, {in.part()}, {in.opened()}, verdicts(in.verdicts()), weights(in.blocks())};
}

CancelNote BodyReader::read(const wire::CancelNote& in) {
    return {{in.step()},
            one_of(in.reason(), CancelReason::in_step, "cancel reason"),
            {in.acknowledged()}};
}

CancelReply BodyReader::read(const wire::CancelReply& in) { return {{in.step()}}; }

Initialise BodyReader::read(const wire::Initialise& in) {
    part_of(in.part(), in.parts());
    return {{in.part()}, in.parts(), weights(in.blocks())};
}

InitialiseReply BodyReader::read(const wire::InitialiseReply& in) { return {{in.part()}}; }

LeaseRequest BodyReader::read(const wire::LeaseRequest& in) {
    return {in.request(), ranges(in.finished()), in.wants_more()};
}

LeaseReply BodyReader::read(const wire::LeaseReply& in) {
    return {in.request(), ranges(in.granted()), in.no_more(), workers(in.members())};
}

Farewell BodyReader::read(const wire::Farewell& in) { return {{in.acknowledged()}}; }

FarewellReply BodyReader::read(const wire::FarewellReply&) { return {}; }

Refusal BodyReader::read(const wire::Refusal& in) {
    return {
        error_code(in.code()), text(in.text(), "refusal"), {in.step()}, {in.part()}, in.request()};
}

// ---- any ----

Body BodyReader::read(const wire::Message& message) {
    Body body;
    const void* table = message.body();
    bool known = table != nullptr;
    // One case per alternative; the compiler names the one that is missing (-Wswitch).
#define DETENTE_READ_BODY(Kind)                            \
    case wire::Body::Kind:                                 \
        if (known) body = read(*message.body_as_##Kind()); \
        break;
    switch (message.body_type()) {
        DETENTE_READ_BODY(PullRequest)
        DETENTE_READ_BODY(PullReply)
        DETENTE_READ_BODY(Push)
        DETENTE_READ_BODY(PushReply)
        DETENTE_READ_BODY(CancelNote)
        DETENTE_READ_BODY(CancelReply)
        DETENTE_READ_BODY(Initialise)
        DETENTE_READ_BODY(InitialiseReply)
        DETENTE_READ_BODY(LeaseRequest)
        DETENTE_READ_BODY(LeaseReply)
        DETENTE_READ_BODY(Farewell)
        DETENTE_READ_BODY(FarewellReply)
        DETENTE_READ_BODY(Refusal)
        DETENTE_READ_BODY(StageNotice)
        DETENTE_READ_BODY(StageDecision)
        DETENTE_READ_BODY(StageReply)
        DETENTE_READ_BODY(Wait)
        DETENTE_READ_BODY(Restart)
        DETENTE_READ_BODY(Hello)
        DETENTE_READ_BODY(Welcome)
        DETENTE_READ_BODY(Ready)
        DETENTE_READ_BODY(Go)
        DETENTE_READ_BODY(Status)
        DETENTE_READ_BODY(PeerChange)
        DETENTE_READ_BODY(CheckpointRequest)
        DETENTE_READ_BODY(CheckpointReply)
        DETENTE_READ_BODY(Stop)
        DETENTE_READ_BODY(Stopped)
        DETENTE_READ_BODY(PolicyChange)
        DETENTE_READ_BODY(PolicyChanged)
        DETENTE_READ_BODY(FormGroup)
        DETENTE_READ_BODY(LostGroup)
        case wire::Body::NONE:
            known = false;
            break;
        default:
            known = false;
    }
#undef DETENTE_READ_BODY
    if (!known) {
        refuse(ErrorCode::bad_message,
               "no body of kind " + std::to_string(static_cast<unsigned>(message.body_type())));
    }
    if (!error_ && cursor_.taken_bytes() > kMostMessageBytes) {
        refuse(ErrorCode::over_limit, "at most " + std::to_string(kMostMessageBytes) +
                                          " payload bytes are allowed, found " +
                                          std::to_string(cursor_.taken_bytes()));
    }
    if (!error_ && !cursor_.finished()) refuse(ErrorCode::bad_message, cursor_.why());
    return body;
}

}  // namespace detente::codec
