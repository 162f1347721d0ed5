#include "common/codec/body_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace detente::codec {
namespace {

constexpr ErrorCode kLastErrorCode = ErrorCode::internal;

}  // namespace

// ---- parts ----

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
    return {in.data_epoch(), in.first(), in.count()};
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
    out.blocks = gradients(in.blocks());
    return out;
}

PushReply BodyReader::read(const wire::PushReply& in) {
    return {{in.step()}, {in.part()}, {in.opened()}, verdicts(in.verdicts()), weights(in.blocks())};
}

CancelNote BodyReader::read(const wire::CancelNote& in) {
    return {{in.step()},
            one_of(in.reason(), CancelReason::failed, "cancel reason"),
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
    return {in.request(), ranges(in.granted()), in.no_more()};
}

Farewell BodyReader::read(const wire::Farewell& in) { return {{in.acknowledged()}}; }

FarewellReply BodyReader::read(const wire::FarewellReply&) { return {}; }

Refusal BodyReader::read(const wire::Refusal& in) {
    return {
        error_code(in.code()), text(in.text(), "refusal"), {in.step()}, {in.part()}, in.request()};
}

// ---- step scope ----

StageNotice BodyReader::read(const wire::StageNotice& in) {
    const auto* sums = in.sums();
    const std::size_t count = entries(sums, kMostBlocksPerMessage, alignof(wire::BlockSum), "sums");
    distinct(count, "sums", [sums](std::size_t i) { return sums->Get(i)->block(); });
    StageNotice out;
    out.worker = {in.worker()};
    out.incarnation = {in.incarnation()};
    out.step = {in.step()};
    out.staged = in.staged();
    out.reason = error_code(in.reason());
    out.staged_bytes = in.staged_bytes();
    out.sums.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::BlockSum& sum = *sums->Get(i);
        if (!std::isfinite(sum.sum())) {
            refuse(ErrorCode::not_finite,
                   "sum of block " + std::to_string(sum.block()) + " is not a finite number");
        }
        out.sums.emplace_back(BlockId{sum.block()}, sum.sum());
    }
    return out;
}

StageDecision BodyReader::read(const wire::StageDecision& in) {
    const auto* pushes = in.pushes();
    const std::size_t count =
        entries(pushes, kMostListEntries, alignof(wire::StagedPush), "staged pushes");
    StageDecision out;
    out.action = one_of(in.action(), StepAction::hold, "step action");
    out.sequence = {{in.lead_epoch()}, in.number()};
    out.step_scale = finite(in.step_scale(), "step scale");
    out.pushes.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::StagedPush& push = *pushes->Get(i);
        out.pushes.push_back({{push.worker()},
                              {push.incarnation()},
                              {push.step()},
                              finite(push.gradient_weight(), "gradient weight")});
    }
    return out;
}

StageReply BodyReader::read(const wire::StageReply& in) {
    return {{{in.lead_epoch()}, in.number()}};
}

// ---- coordinator ----

Hello BodyReader::read(const wire::Hello& in) {
    return {endpoint(in.endpoint()), in.process(), text(in.build(), "build"), in.has_weights()};
}

Welcome BodyReader::read(const wire::Welcome& in) {
    Welcome out;
    out.job = text(in.job(), "job");
    out.model = text(in.model(), "model");
    const auto* peers = in.peers();
    const std::size_t count =
        entries(peers, kMostListEntries, alignof(flatbuffers::uoffset_t), "peers");
    out.peers.reserve(count);
    for (std::size_t i = 0; i < count; ++i) out.peers.push_back(endpoint(peers->Get(i)));
    out.initialise = in.initialise();
    return out;
}

Ready BodyReader::read(const wire::Ready&) { return {}; }

Go BodyReader::read(const wire::Go&) { return {}; }

Status BodyReader::read(const wire::Status& in) {
    Status out;
    out.activity = text(in.activity(), "activity");
    out.waiting_for = text(in.waiting_for(), "waiting for");
    out.waited = Nanos{in.waited_ns()};
    const auto* values = in.values();
    const std::size_t count =
        entries(values, kMostListEntries, alignof(flatbuffers::uoffset_t), "values");
    out.values.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::NamedValue& value = *values->Get(i);
        out.values.push_back({text(value.name(), "name of a value"), value.value()});
    }
    const auto* bins = in.staleness();
    const std::size_t bin_count =
        entries(bins, kMostListEntries, alignof(std::uint64_t), "staleness bins");
    for (std::size_t i = 0; i < bin_count; ++i) out.staleness.push_back(bins->Get(i));
    // A loss may be NaN: a run that diverges should be able to say so.
    const auto* losses = in.losses();
    const std::size_t loss_count = entries(losses, kMostListEntries, alignof(double), "losses");
    for (std::size_t i = 0; i < loss_count; ++i) out.losses.push_back(losses->Get(i));
    return out;
}

PeerChange BodyReader::read(const wire::PeerChange& in) {
    return {node(in.role(), in.index()),
            {in.incarnation()},
            in.up(),
            text(in.reason(), "reason"),
            endpoint(in.endpoint())};
}

CheckpointRequest BodyReader::read(const wire::CheckpointRequest& in) {
    return {in.number(), text(in.directory(), "directory")};
}

CheckpointReply BodyReader::read(const wire::CheckpointReply& in) {
    return {in.number(), text(in.file(), "file"), error_code(in.code()), text(in.error(), "error")};
}

Stop BodyReader::read(const wire::Stop& in) { return {text(in.reason(), "reason"), in.drain()}; }

Stopped BodyReader::read(const wire::Stopped& in) {
    Stopped out;
    out.failed = in.failed();
    out.code = error_code(in.code());
    out.error = text(in.error(), "error");
    if (in.last() != nullptr) out.last = read(*in.last());
    return out;
}

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
