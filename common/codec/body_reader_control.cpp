// The messages among shards and those of the coordinator; body_reader.cpp has the rest.
#include <cmath>

#include "common/codec/body_reader.h"

namespace detente::codec {

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

}  // namespace detente::codec
