// The messages among shards and those of the coordinator; body_reader.cpp has the rest.
#include <cmath>

#include "common/codec/body_reader.h"

namespace detente::codec {

// ---- step scope ----

StageNotice BodyReader::read(const wire::StageNotice& in) {
    const auto* sums = in.sums();
    const std::size_t count =
        entries(sums, kMostBlocksPerMessage, alignof(wire::BlockSums), "sums");
    distinct(count, "sums", [sums](std::size_t i) { return sums->Get(i)->block(); });
    StageNotice out;
    out.push = {{in.worker()}, {in.incarnation()}, {in.step()}};
    out.staged = in.staged();
    out.reason = error_code(in.reason());
    out.version = in.version();
    out.samples = in.samples();
    out.staged_bytes = in.staged_bytes();
    out.sums.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        const wire::BlockSums& sum = *sums->Get(i);
        if (!std::isfinite(sum.gradient_sq()) || !std::isfinite(sum.weights_sq())) {
            refuse(ErrorCode::not_finite,
                   "sum of block " + std::to_string(sum.block()) + " is not a finite number");
        }
        out.sums.push_back({{sum.block()}, sum.gradient_sq(), sum.weights_sq()});
    }
    return out;
}

StageDecision BodyReader::read(const wire::StageDecision& in) {
    StageDecision out;
    out.sequence = {{in.lead_epoch()}, in.number()};
    const auto* commits = in.commits();
    const auto* pushes = in.pushes();
    const std::size_t commit_count =
        entries(commits, kMostListEntries, alignof(wire::StepCommit), "commits");
    const std::size_t push_count =
        entries(pushes, kMostListEntries, alignof(wire::StagedPush), "staged pushes");
    std::size_t at = 0;
    out.commits.reserve(commit_count);
    for (std::size_t i = 0; i < commit_count; ++i) {
        const wire::StepCommit& commit = *commits->Get(i);
        if (commit.pushes() == 0 || commit.pushes() > push_count - at) {
            refuse(ErrorCode::bad_message, "commit " + std::to_string(i) + " is of " +
                                               std::to_string(commit.pushes()) + " pushes, " +
                                               std::to_string(push_count - at) + " are left");
            return out;
        }
        if (!std::isfinite(commit.denominator()) || commit.denominator() == 0) {
            refuse(ErrorCode::not_finite, "denominator of a commit is zero or not finite");
        }
        StepCommit& to = out.commits.emplace_back();
        to.version = commit.version();
        to.denominator = commit.denominator();
        to.step_scale = finite(commit.step_scale(), "step scale");
        for (std::uint32_t k = 0; k < commit.pushes(); ++k, ++at) {
            const wire::StagedPush& push = *pushes->Get(at);
            to.pushes.push_back({{{push.worker()}, {push.incarnation()}, {push.step()}},
                                 finite(push.gradient_weight(), "gradient weight")});
        }
    }
    if (at != push_count) {
        refuse(ErrorCode::bad_message,
               std::to_string(push_count - at) + " staged pushes belong to no commit");
    }
    const auto* aborts = in.aborts();
    const std::size_t abort_count =
        entries(aborts, kMostListEntries, alignof(wire::StepAbort), "aborts");
    for (std::size_t i = 0; i < abort_count; ++i) {
        const wire::StepAbort& abort = *aborts->Get(i);
        out.aborts.push_back({{{abort.worker()}, {abort.incarnation()}, {abort.step()}},
                              one_of(abort.advice(), Advice::compensate, "advice"),
                              error_code(abort.reason())});
    }
    const auto pushes_of = [&](const auto* list, const char* what) {
        std::vector<PushId> ids;
        const std::size_t count = entries(list, kMostListEntries, alignof(wire::PushId), what);
        ids.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            const wire::PushId& push = *list->Get(i);
            ids.push_back({{push.worker()}, {push.incarnation()}, {push.step()}});
        }
        return ids;
    };
    out.buffered = pushes_of(in.buffered(), "buffered pushes");
    out.cuts = pushes_of(in.cuts(), "cuts");
    out.hold = workers(in.hold());
    out.release = workers(in.release());
    const auto* changes = in.changes();
    const std::size_t change_count =
        entries(changes, kMostListEntries, alignof(flatbuffers::uoffset_t), "changes of policy");
    for (std::size_t i = 0; i < change_count; ++i) out.changes.push_back(read(*changes->Get(i)));
    const auto* checkpoints = in.checkpoints();
    const std::size_t checkpoint_count =
        entries(checkpoints, kMostListEntries, alignof(flatbuffers::uoffset_t), "checkpoints");
    for (std::size_t i = 0; i < checkpoint_count; ++i) {
        out.checkpoints.push_back(read(*checkpoints->Get(i)));
    }
    return out;
}

PolicyChange BodyReader::read(const wire::PolicyChange& in) {
    PolicyChange out;
    out.request = in.request();
    out.policy = text(in.policy(), "policy");
    const auto* parameters = in.parameters();
    const std::size_t count = entries(parameters, kMostListEntries, alignof(flatbuffers::uoffset_t),
                                      "parameters of a policy");
    for (std::size_t i = 0; i < count; ++i) {
        const wire::NamedText& one = *parameters->Get(i);
        out.parameters.emplace_back(text(one.name(), "name of a parameter"),
                                    text(one.text(), "value of a parameter"));
    }
    out.by = text(in.by(), "by");
    if (in.has_admission()) {
        out.admission = one_of(in.admission(), Admission::step, "admission");
    }
    return out;
}

PolicyChanged BodyReader::read(const wire::PolicyChanged& in) {
    return {in.request(),
            {{in.lead_epoch()}, in.number()},
            error_code(in.code()),
            text(in.error(), "error"),
            in.later()};
}

FormGroup BodyReader::read(const wire::FormGroup& in) {
    return {{{in.epoch()}, workers(in.members())}};
}

LostGroup BodyReader::read(const wire::LostGroup& in) {
    return {{in.epoch()}, workers(in.missing()), error_code(in.code()), text(in.error(), "error")};
}

std::vector<WorkerId> BodyReader::workers(const flatbuffers::Vector<std::uint32_t>* in) {
    const std::size_t count = entries(in, kMostListEntries, alignof(std::uint32_t), "workers");
    std::vector<WorkerId> out;
    out.reserve(count);
    for (std::size_t i = 0; i < count; ++i) out.push_back({in->Get(i)});
    return out;
}

Wait BodyReader::read(const wire::Wait& in) {
    return {{in.step()}, {in.part()}, in.request(), one_of(in.why(), WaitFor::push_again, "wait")};
}

Restart BodyReader::read(const wire::Restart& in) { return {{in.step()}}; }

StageReply BodyReader::read(const wire::StageReply& in) {
    return {{{in.lead_epoch()}, in.number()}};
}

// ---- coordinator ----

Hello BodyReader::read(const wire::Hello& in) {
    return {endpoint(in.endpoint()), in.process(), text(in.build(), "build"), in.has_weights(),
            in.memory_bytes()};
}

MethodState BodyReader::method_state(const wire::MethodState* in) {
    if (in == nullptr) return {};
    MethodState out;
    out.method = text(in->method(), "method");
    out.groups = in->groups();
    const auto* values = in->values();
    const std::size_t count =
        entries(values, kMostMethodValues, alignof(double), "values of a method");
    out.values.reserve(count);
    for (std::size_t i = 0; i < count; ++i) out.values.push_back(values->Get(i));
    return out;
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
    out.method_state = method_state(in.method_state());
    out.host = text(in.host(), "host");
    out.build = text(in.build(), "build");
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
    const auto* cosines = in.cosine_bins();
    const std::size_t cosine_count =
        entries(cosines, kMostCosineBins, alignof(std::uint64_t), "cosine bins");
    for (std::size_t i = 0; i < cosine_count; ++i) out.cosine_bins.push_back(cosines->Get(i));
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
    CheckpointRequest out;
    out.number = in.number();
    out.directory = text(in.directory(), "directory");
    const auto* methods = in.methods();
    const std::size_t count =
        entries(methods, kMostListEntries, alignof(flatbuffers::uoffset_t), "methods");
    for (std::size_t i = 0; i < count; ++i) {
        const wire::WorkerMethod& method = *methods->Get(i);
        out.methods.push_back({{method.worker()}, method_state(method.state())});
    }
    return out;
}

CheckpointReply BodyReader::read(const wire::CheckpointReply& in) {
    return {in.number(), text(in.file(), "file"), error_code(in.code()), text(in.error(), "error"),
            method_state(in.method_state())};
}

Stop BodyReader::read(const wire::Stop& in) { return {text(in.reason(), "reason"), in.drain()}; }

Stopped BodyReader::read(const wire::Stopped& in) {
    Stopped out;
    out.failed = in.failed();
    out.code = error_code(in.code());
    out.error = text(in.error(), "error");
    if (in.last() != nullptr) out.last = read(*in.last());
    out.method_state = method_state(in.method_state());
    return out;
}

}  // namespace detente::codec
