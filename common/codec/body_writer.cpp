#include "common/codec/body_writer.h"

#include "common/checksum.h"

namespace detente::codec {
namespace {

template <class Table>
constexpr wire::Body kind_of_table(flatbuffers::Offset<Table>) {
    return wire::BodyTraits<Table>::enum_value;
}

template <class Enum>
std::uint8_t number(Enum value) {
    return static_cast<std::uint8_t>(value);
}

wire::BatchRange wire_of(const BatchRange& in) {
    return {in.data_epoch, in.first, in.count, in.tasks.bits};
}

}  // namespace

BodyWriter::Written BodyWriter::write(const Body& body) {
    return std::visit(
        [this](const auto& message) -> Written {
            const auto offset = write(message);
            return {kind_of_table(offset), offset.Union()};
        },
        body);
}

BodyWriter::Text BodyWriter::text(const std::string& in) {
    return in.empty() ? Text{} : builder_.CreateString(in);
}

std::uint64_t BodyWriter::checksum(const std::optional<std::uint64_t>& known,
                                   const Payload& bytes) const {
    if (known) return *known;
    return checksums_ ? checksum_of(bytes.bytes) : 0;
}

BodyWriter::List<const wire::WeightBlock*> BodyWriter::list(const std::vector<WeightBlock>& in) {
    if (in.empty()) return {};
    scratch_.payloads.clear();
    for (const WeightBlock& block : in) scratch_.payloads.push_back(&block.weights);
    frames_ = lay_out(scratch_.payloads, scratch_.slices);
    wire::WeightBlock* out = nullptr;
    const auto offset = builder_.CreateUninitializedVectorOfStructs(in.size(), &out);
    for (std::size_t i = 0; i < in.size(); ++i) {
        const WeightBlock& block = in[i];
        const Slice& slice = scratch_.slices[i];
        out[i] = {block.block.value,
                  block.version.value,
                  checksum(block.checksum, block.weights),
                  block.epoch.value,
                  slice.offset,
                  slice.length,
                  slice.frame,
                  checksums_ || block.checksum.has_value()};
    }
    return offset;
}

BodyWriter::List<const wire::GradientBlock*> BodyWriter::list(
    const std::vector<GradientBlock>& in) {
    if (in.empty()) return {};
    scratch_.payloads.clear();
    for (const GradientBlock& block : in) scratch_.payloads.push_back(&block.gradient);
    frames_ = lay_out(scratch_.payloads, scratch_.slices);
    wire::GradientBlock* out = nullptr;
    const auto offset = builder_.CreateUninitializedVectorOfStructs(in.size(), &out);
    for (std::size_t i = 0; i < in.size(); ++i) {
        const GradientBlock& block = in[i];
        const Slice& slice = scratch_.slices[i];
        out[i] = {block.block.value,
                  block.tasks.bits,
                  block.base.value,
                  checksum(block.checksum, block.gradient),
                  block.epoch.value,
                  slice.offset,
                  slice.length,
                  slice.frame,
                  checksums_ || block.checksum.has_value()};
    }
    return offset;
}

BodyWriter::List<const wire::BatchRange*> BodyWriter::list(const std::vector<BatchRange>& in) {
    if (in.empty()) return {};
    wire::BatchRange* out = nullptr;
    const auto offset = builder_.CreateUninitializedVectorOfStructs(in.size(), &out);
    for (const BatchRange& range : in) *out++ = wire_of(range);
    return offset;
}

BodyWriter::List<std::uint64_t> BodyWriter::list(const std::vector<std::uint64_t>& in) {
    return in.empty() ? List<std::uint64_t>{} : builder_.CreateVector(in);
}
BodyWriter::List<std::uint32_t> BodyWriter::workers(const std::vector<WorkerId>& in) {
    if (in.empty()) return {};
    std::uint32_t* out = nullptr;
    const auto offset = builder_.CreateUninitializedVector(in.size(), &out);
    for (const WorkerId id : in) *out++ = id.value;
    return offset;
}
BodyWriter::List<double> BodyWriter::list(const std::vector<double>& in) {
    return in.empty() ? List<double>{} : builder_.CreateVector(in);
}

// ---- worker and shard ----

flatbuffers::Offset<wire::PullRequest> BodyWriter::write(const PullRequest& in) {
    List<std::uint64_t> blocks;
    if (!in.blocks.empty()) {
        std::uint64_t* out = nullptr;
        blocks = builder_.CreateUninitializedVector(in.blocks.size(), &out);
        for (const BlockId id : in.blocks) *out++ = id.value;
    }
    return wire::CreatePullRequest(builder_, in.step.value, in.opens, in.request,
                                   in.acknowledged.value, blocks, in.cut);
}

flatbuffers::Offset<wire::PullReply> BodyWriter::write(const PullReply& in) {
    const auto blocks = list(in.blocks);
    return wire::CreatePullReply(builder_, in.step.value, in.request, in.part.value, in.parts,
                                 in.credit_bytes, blocks);
}

flatbuffers::Offset<wire::Push> BodyWriter::write(const Push& in) {
    const auto blocks = list(in.blocks);
    const wire::BatchRange batch = wire_of(in.batch);
    return wire::CreatePush(builder_, in.step.value, in.part.value, in.parts, in.opens.value,
                            in.acknowledged.value, &batch, in.samples, in.gradient_hash, blocks);
}

flatbuffers::Offset<wire::PushReply> BodyWriter::write(const PushReply& in) {
    const auto blocks = list(in.blocks);
    List<const wire::BlockVerdict*> verdicts;
    if (!in.verdicts.empty()) {
        wire::BlockVerdict* out = nullptr;
        verdicts = builder_.CreateUninitializedVectorOfStructs(in.verdicts.size(), &out);
        for (const BlockVerdict& verdict : in.verdicts) {
            *out++ = {verdict.block.value,    verdict.staleness,     verdict.version.value,
                      verdict.epoch.value,    verdict.step_scale,    number(verdict.verdict),
                      number(verdict.advice), number(verdict.reason)};
        }
    }
    return wire::CreatePushReply(builder_, in.step.value, in.part.value, in.opened.value, verdicts,
                                 blocks);
}

flatbuffers::Offset<wire::CancelNote> BodyWriter::write(const CancelNote& in) {
    return wire::CreateCancelNote(builder_, in.step.value, number(in.reason),
                                  in.acknowledged.value);
}

flatbuffers::Offset<wire::CancelReply> BodyWriter::write(const CancelReply& in) {
    return wire::CreateCancelReply(builder_, in.step.value);
}

flatbuffers::Offset<wire::Initialise> BodyWriter::write(const Initialise& in) {
    const auto blocks = list(in.blocks);
    return wire::CreateInitialise(builder_, in.part.value, in.parts, blocks);
}

flatbuffers::Offset<wire::InitialiseReply> BodyWriter::write(const InitialiseReply& in) {
    return wire::CreateInitialiseReply(builder_, in.part.value);
}

flatbuffers::Offset<wire::LeaseRequest> BodyWriter::write(const LeaseRequest& in) {
    const auto finished = list(in.finished);
    return wire::CreateLeaseRequest(builder_, in.request, finished, in.wants_more);
}

flatbuffers::Offset<wire::LeaseReply> BodyWriter::write(const LeaseReply& in) {
    const auto granted = list(in.granted);
    const auto members = workers(in.members);
    return wire::CreateLeaseReply(builder_, in.request, granted, in.no_more, members);
}

flatbuffers::Offset<wire::Farewell> BodyWriter::write(const Farewell& in) {
    return wire::CreateFarewell(builder_, in.acknowledged.value);
}

flatbuffers::Offset<wire::FarewellReply> BodyWriter::write(const FarewellReply&) {
    return wire::CreateFarewellReply(builder_);
}

flatbuffers::Offset<wire::Refusal> BodyWriter::write(const Refusal& in) {
    const Text words = text(in.text);
    return wire::CreateRefusal(builder_, number(in.code), words, in.step.value, in.part.value,
                               in.request);
}

// ---- step scope ----

flatbuffers::Offset<wire::StageNotice> BodyWriter::write(const StageNotice& in) {
    List<const wire::BlockSums*> sums;
    if (!in.sums.empty()) {
        wire::BlockSums* out = nullptr;
        sums = builder_.CreateUninitializedVectorOfStructs(in.sums.size(), &out);
        for (const BlockSums& one : in.sums) {
            *out++ = {one.block.value, one.gradient_sq, one.weights_sq};
        }
    }
    return wire::CreateStageNotice(builder_, in.push.worker.value, in.push.incarnation.value,
                                   in.push.step.value, in.staged, number(in.reason), in.version,
                                   in.samples, in.staged_bytes, sums);
}

flatbuffers::Offset<wire::StageDecision> BodyWriter::write(const StageDecision& in) {
    std::vector<wire::StepCommit> commits;
    std::vector<wire::StagedPush> pushes;
    for (const StepCommit& commit : in.commits) {
        commits.emplace_back(commit.version, commit.denominator,
                             static_cast<std::uint32_t>(commit.pushes.size()), commit.step_scale);
        for (const StagedPush& one : commit.pushes) {
            pushes.emplace_back(one.push.step.value, one.push.worker.value,
                                one.push.incarnation.value, one.gradient_weight);
        }
    }
    std::vector<wire::StepAbort> aborts;
    for (const StepAbort& abort : in.aborts) {
        aborts.emplace_back(abort.push.step.value, abort.push.worker.value,
                            abort.push.incarnation.value, number(abort.advice),
                            number(abort.reason));
    }
    const auto pushes_of = [](const std::vector<PushId>& ids) {
        std::vector<wire::PushId> list;
        list.reserve(ids.size());
        for (const PushId& push : ids) {
            list.emplace_back(push.step.value, push.worker.value, push.incarnation.value);
        }
        return list;
    };
    const std::vector<wire::PushId> buffered = pushes_of(in.buffered);
    const std::vector<wire::PushId> cuts = pushes_of(in.cuts);
    std::vector<flatbuffers::Offset<wire::PolicyChange>> changes;
    for (const PolicyChange& change : in.changes) changes.push_back(write(change));
    std::vector<flatbuffers::Offset<wire::CheckpointRequest>> checkpoints;
    for (const CheckpointRequest& one : in.checkpoints) checkpoints.push_back(write(one));
    const auto hold = workers(in.hold);
    const auto release = workers(in.release);
    const auto commit_list = builder_.CreateVectorOfStructs(commits);
    const auto push_list = builder_.CreateVectorOfStructs(pushes);
    const auto abort_list = builder_.CreateVectorOfStructs(aborts);
    const auto buffered_list = builder_.CreateVectorOfStructs(buffered);
    List<flatbuffers::Offset<wire::PolicyChange>> change_list;
    if (!changes.empty()) change_list = builder_.CreateVector(changes);
    List<flatbuffers::Offset<wire::CheckpointRequest>> checkpoint_list;
    if (!checkpoints.empty()) checkpoint_list = builder_.CreateVector(checkpoints);
    List<const wire::PushId*> cut_list;
    if (!cuts.empty()) cut_list = builder_.CreateVectorOfStructs(cuts);
    return wire::CreateStageDecision(builder_, in.sequence.lead_epoch.value, in.sequence.number,
                                     commit_list, push_list, abort_list, buffered_list, hold,
                                     release, change_list, checkpoint_list, cut_list);
}

flatbuffers::Offset<wire::PolicyChange> BodyWriter::write(const PolicyChange& in) {
    const Text policy = text(in.policy);
    std::vector<flatbuffers::Offset<wire::NamedText>> entries;
    for (const auto& [name, value] : in.parameters) {
        const Text name_text = text(name);
        const Text value_text = text(value);
        entries.push_back(wire::CreateNamedText(builder_, name_text, value_text));
    }
    const auto parameters = builder_.CreateVector(entries);
    const Text by = text(in.by);
    return wire::CreatePolicyChange(builder_, in.request, policy, parameters, by,
                                    number(in.admission.value_or(Admission::block)),
                                    in.admission.has_value());
}

flatbuffers::Offset<wire::PolicyChanged> BodyWriter::write(const PolicyChanged& in) {
    const Text error = text(in.error);
    return wire::CreatePolicyChanged(builder_, in.request, in.sequence.lead_epoch.value,
                                     in.sequence.number, number(in.code), error, in.later);
}

flatbuffers::Offset<wire::FormGroup> BodyWriter::write(const FormGroup& in) {
    const auto members = workers(in.group.members);
    return wire::CreateFormGroup(builder_, in.group.epoch.value, members);
}

flatbuffers::Offset<wire::LostGroup> BodyWriter::write(const LostGroup& in) {
    const auto missing = workers(in.missing);
    const Text error = text(in.error);
    return wire::CreateLostGroup(builder_, in.epoch.value, missing, number(in.code), error);
}

flatbuffers::Offset<wire::Wait> BodyWriter::write(const Wait& in) {
    return wire::CreateWait(builder_, in.step.value, in.part.value, in.request, number(in.why));
}

flatbuffers::Offset<wire::Restart> BodyWriter::write(const Restart& in) {
    return wire::CreateRestart(builder_, in.step.value);
}

flatbuffers::Offset<wire::StageReply> BodyWriter::write(const StageReply& in) {
    return wire::CreateStageReply(builder_, in.sequence.lead_epoch.value, in.sequence.number);
}

// ---- coordinator ----

flatbuffers::Offset<wire::Endpoint> BodyWriter::write(const Endpoint& in) {
    const Text tcp = text(in.tcp);
    const Text ipc = text(in.ipc);
    const Text host = text(in.host);
    return wire::CreateEndpoint(builder_, number(in.node.role), in.node.index, in.incarnation.value,
                                tcp, ipc, host);
}

flatbuffers::Offset<wire::Hello> BodyWriter::write(const Hello& in) {
    const auto endpoint = write(in.endpoint);
    const Text build = text(in.build);
    return wire::CreateHello(builder_, endpoint, in.process, build, in.has_weights,
                             in.memory_bytes);
}

flatbuffers::Offset<wire::MethodState> BodyWriter::method_state(const MethodState& in) {
    const Text method = text(in.method);
    const auto values = list(in.values);
    return wire::CreateMethodState(builder_, method, in.groups, values);
}

flatbuffers::Offset<wire::Welcome> BodyWriter::write(const Welcome& in) {
    const Text job = text(in.job);
    const Text model = text(in.model);
    std::vector<flatbuffers::Offset<wire::Endpoint>> endpoints;
    endpoints.reserve(in.peers.size());
    for (const Endpoint& peer : in.peers) endpoints.push_back(write(peer));
    const auto peers = builder_.CreateVector(endpoints);
    const auto state = method_state(in.method_state);
    const Text host = text(in.host);
    const Text build = text(in.build);
    return wire::CreateWelcome(builder_, job, model, peers, in.initialise, state, host, build);
}

flatbuffers::Offset<wire::Ready> BodyWriter::write(const Ready&) {
    return wire::CreateReady(builder_);
}

flatbuffers::Offset<wire::Go> BodyWriter::write(const Go&) { return wire::CreateGo(builder_); }

flatbuffers::Offset<wire::Status> BodyWriter::write(const Status& in) {
    const Text activity = text(in.activity);
    const Text waiting_for = text(in.waiting_for);
    std::vector<flatbuffers::Offset<wire::NamedValue>> entries;
    entries.reserve(in.values.size());
    for (const NamedValue& value : in.values) {
        const Text name = text(value.name);
        entries.push_back(wire::CreateNamedValue(builder_, name, value.value));
    }
    const auto values = builder_.CreateVector(entries);
    const auto staleness = list(in.staleness);
    const auto losses = list(in.losses);
    const auto cosine_bins = list(in.cosine_bins);
    return wire::CreateStatus(builder_, activity, waiting_for, in.waited.count(), values, staleness,
                              losses, cosine_bins);
}

flatbuffers::Offset<wire::PeerChange> BodyWriter::write(const PeerChange& in) {
    const Text reason = text(in.reason);
    const auto endpoint = write(in.endpoint);
    return wire::CreatePeerChange(builder_, number(in.node.role), in.node.index,
                                  in.incarnation.value, in.up, reason, endpoint);
}

flatbuffers::Offset<wire::CheckpointRequest> BodyWriter::write(const CheckpointRequest& in) {
    const Text directory = text(in.directory);
    std::vector<flatbuffers::Offset<wire::WorkerMethod>> entries;
    entries.reserve(in.methods.size());
    for (const WorkerMethod& method : in.methods) {
        const auto state = method_state(method.state);
        entries.push_back(wire::CreateWorkerMethod(builder_, method.worker.value, state));
    }
    const auto methods = builder_.CreateVector(entries);
    return wire::CreateCheckpointRequest(builder_, in.number, directory, methods);
}

flatbuffers::Offset<wire::CheckpointReply> BodyWriter::write(const CheckpointReply& in) {
    const Text file = text(in.file);
    const Text error = text(in.error);
    const auto state = method_state(in.method_state);
    return wire::CreateCheckpointReply(builder_, in.number, file, number(in.code), error, state);
}

flatbuffers::Offset<wire::Stop> BodyWriter::write(const Stop& in) {
    const Text reason = text(in.reason);
    return wire::CreateStop(builder_, reason, in.drain);
}

flatbuffers::Offset<wire::Stopped> BodyWriter::write(const Stopped& in) {
    const Text error = text(in.error);
    const auto last = write(in.last);
    const auto state = method_state(in.method_state);
    return wire::CreateStopped(builder_, in.failed, number(in.code), error, last, state);
}

}  // namespace detente::codec
