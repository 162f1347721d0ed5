#include "launch/coordinator.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/build_id.h"
#include "common/conflict/aggregator.h"

namespace detente {

namespace {

// What a process last said it was doing, for messages about its silence.
std::string doing(const ProcessView& process) {
    std::string text = process.last.activity.empty() ? "nothing reported yet"
                                                     : "last seen " + process.last.activity;
    if (!process.last.waiting_for.empty()) text += ", waiting for " + process.last.waiting_for;
    return text;
}

// A shard that listens on loopback while another process is on another host: both are named now,
// instead of connections that nobody answers. Nothing: every shard may be reached.
std::optional<Error> unreachable(const std::vector<ProcessView>& processes) {
    for (const ProcessView& shard : processes) {
        if (!shard.endpoint.tcp.starts_with("tcp://127.")) continue;
        for (const ProcessView& other : processes) {
            if (other.endpoint.host == shard.endpoint.host) continue;
            return fail(
                ErrorCode::bad_job,
                fmt::format("{} on {} listens on {} only, so that {} on {} cannot reach it: "
                            "set transport.bind_address to a network that both are in, or "
                            "to 0.0.0.0",
                            to_string(shard.node), shard.endpoint.host, shard.endpoint.tcp,
                            to_string(other.node), other.endpoint.host));
        }
    }
    return std::nullopt;
}

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options)
    : options_(std::move(options)), nodes_(options_.job) {
    const Job& job = options_.job;
    view_.job = job.name;
    view_.tasks = options_.tasks;
    view_.metrics = options_.metrics;
    view_.samples_planned = options_.training_samples * job.data_epochs;
    if (job.split_tasks) {
        view_.samples_planned *= static_cast<std::uint64_t>(options_.trained.count());
    }
    view_.shards_per_server = job.shards_per_server;
    const auto add = [&](NodeId node) {
        ProcessView process;
        process.node = node;
        view_.processes.push_back(std::move(process));
    };
    for (std::uint32_t i = 0; i < job.shards(); ++i) {
        add(node_of(ShardId{i}));
    }
    for (std::uint32_t i = 0; i < job.workers; ++i) {
        add(node_of(WorkerId{i}));
    }
    const auto method = make_aggregator(job.aggregator);
    workers_remember_ =
        options_.workers_keep_vectors || job.conflict_every > 1 ||
        (method.has_value() && !(*method)->initial_state(options_.tasks.size()).values.empty());
    for (const WorkerMethod& saved : options_.methods) {
        method_states_[node_of(saved.worker)] = saved.state;
    }
    next_checkpoint_ = options_.first_checkpoint;
    view_.resumed_from = options_.resumed_from;
    view_.samples_before = options_.samples_before;
    // As they would have been due had the run not ended in between.
    const auto first_due = [&](std::uint64_t every) {
        return every == 0 ? 0 : (options_.samples_before / every + 1) * every;
    };
    next_evaluation_samples_ = first_due(job.evaluate_every_samples);
    next_save_samples_ = first_due(job.checkpoint_every_samples);
}

void Coordinator::on(Event&& event, Time now, Effects& effects) {
    view_.now = now;
    if (view_.stage == Stage::finished) return;
    if (std::holds_alternative<Started>(event)) {
        last_tick_ = now;
        for (ProcessView& process : view_.processes) process.since = process.heard = now;
        enter(Stage::gathering, options_.job.start_deadline, effects);
        effects.after(options_.job.heartbeat_interval, {kTick, 0});
    } else if (auto* received = std::get_if<Received>(&event)) {
        on_message(std::move(received->message), effects);
    } else if (const auto* timer = std::get_if<TimerFired>(&event)) {
        on_timer(*timer, effects);
    } else if (const auto* down = std::get_if<PeerDown>(&event)) {
        ProcessView* process = view_.find(down->node);
        if (process != nullptr) {
            lose(*process, failure_of(*process, ErrorCode::peer_lost, down->reason), effects);
        }
    }
}

void Coordinator::on_message(Message&& message, Effects& effects) {
    const NodeId from = message.envelope.from;
    if (auto* hello = std::get_if<Hello>(&message.body)) {
        return on_hello(message.envelope, std::move(*hello), effects);
    }
    if (from == kCoordinator) {
        if (const auto* stop = std::get_if<Stop>(&message.body)) on_signal(*stop, effects);
        if (auto* change = std::get_if<PolicyChange>(&message.body)) {
            on_policy_change(std::move(*change), effects);
        }
        if (const auto* leaving = std::get_if<PeerChange>(&message.body)) {
            on_drain(*leaving, effects);
        }
        return;
    }
    if (from == kEvaluator) {
        if (const auto* stopped = std::get_if<Stopped>(&message.body)) {
            on_evaluated(*stopped, effects);
        }
        return;
    }
    if (const auto* reply = std::get_if<CheckpointReply>(&message.body)) {
        on_checkpoint_reply(from, *reply, effects);
    }
    ProcessView* process = view_.find(from);
    if (process == nullptr || !process->live()) return;
    process->heard = view_.now;
    if (std::holds_alternative<Ready>(message.body)) on_ready(*process, effects);
    if (auto* status = std::get_if<Status>(&message.body)) {
        on_status(*process, std::move(*status), effects);
    }
    if (auto* stopped = std::get_if<Stopped>(&message.body)) {
        on_stopped(*process, std::move(*stopped), effects);
    }
    if (const auto* lost = std::get_if<LostGroup>(&message.body)) {
        on_lost_group(WorkerId{from.index}, *lost, effects);
    }
    if (auto* changed = std::get_if<PolicyChanged>(&message.body)) {
        send(kCoordinator, std::move(*changed), effects);
    }
}

// Not before all are there, so that none can miss it; not after, when nothing is judged any more.
void Coordinator::on_policy_change(PolicyChange&& change, Effects& effects) {
    if (view_.stage == Stage::training) {
        return send(node_of(kLeadShard), std::move(change), effects);
    }
    PolicyChanged refused;
    refused.request = change.request;
    refused.code = ErrorCode::not_supported;
    refused.error = fmt::format("the policy can be changed while training runs; the run is at: {}",
                                name_of(view_.stage));
    send(kCoordinator, std::move(refused), effects);
}

void Coordinator::on_hello(const Envelope& envelope, Hello&& hello, Effects& effects) {
    ProcessView* process = view_.find(envelope.from);
    if (process == nullptr) process = open_place(envelope.from, hello);
    const std::string name = to_string(envelope.from);
    if (process != nullptr && may_take_place(*process, hello)) {
        return take_place(*process, std::move(hello), effects);
    }
    if (process == nullptr || view_.stage != Stage::gathering || process->phase != Phase::missing) {
        const std::string why =
            process == nullptr
                ? fmt::format(
                      "this job has {} shards, {} workers and {} "
                      "places for workers",
                      options_.job.shards(), options_.job.workers, options_.job.most_workers())
            : process->phase == Phase::missing || !process->live()
                ? "this run takes no new process any more"
                : fmt::format("process {} on {} is {} already", process->process,
                              process->endpoint.host, name);
        effects.log(LogLevel::warning, fmt::format("refused {} of process {} on {}: {}", name,
                                                   hello.process, hello.endpoint.host, why));
        // Whoever speaks for a process that lives is closed by the server before this.
        if (process != nullptr && !process->live()) {
            send(envelope.from, Stop{.reason = why, .drain = false}, effects);
        }
        return;
    }
    process->endpoint = hello.endpoint;
    process->incarnation = hello.endpoint.incarnation;
    process->process = hello.process;
    process->has_weights = hello.has_weights;
    process->memory_bytes = hello.memory_bytes;
    process->heard = view_.now;
    change_phase(*process, Phase::present);
    if (hello.build != build_description()) {
        return abort(fail(ErrorCode::wrong_build,
                          fmt::format("{} on {} was built as \"{}\", the coordinator on {} as "
                                      "\"{}\"; use the same build on every host",
                                      name, hello.endpoint.host, hello.build, options_.host,
                                      build_description())),
                     effects);
    }
    const bool all = std::all_of(view_.processes.begin(), view_.processes.end(),
                                 [](const ProcessView& p) { return p.phase == Phase::present; });
    if (all) welcome_all(effects);
}

void Coordinator::welcome_all(Effects& effects) {
    std::size_t restored = 0;
    Welcome welcome;
    welcome.job = options_.job_text;
    welcome.model = options_.model_json;
    for (const ProcessView& process : view_.processes) {
        welcome.peers.push_back(process.endpoint);
        if (process.node.role == Role::shard && process.has_weights) ++restored;
    }
    if (restored != 0 && restored != options_.job.shards()) {
        return abort(
            fail(ErrorCode::bad_checkpoint,
                 fmt::format("{} of {} shards restored a checkpoint: expected all or none; start "
                             "every server with the same --resume",
                             restored, options_.job.shards())),
            effects);
    }
    if (const auto cut_off = unreachable(view_.processes)) return abort(*cut_off, effects);
    enter(Stage::preparing, options_.job.start_deadline, effects);
    for (ProcessView& process : view_.processes) {
        welcome.initialise = restored == 0 && process.node == node_of(WorkerId{0});
        const auto remembered = method_states_.find(process.node);
        welcome.method_state =
            remembered == method_states_.end() ? MethodState{} : remembered->second;
        change_phase(process, Phase::preparing);
        send(process.node, welcome, effects);
    }
}

void Coordinator::on_ready(ProcessView& process, Effects& effects) {
    if (process.phase != Phase::preparing) return;
    if (view_.stage == Stage::training) {  // it took a lost one's place
        change_phase(process, Phase::working);
        if (nodes_.designated()) form_groups(nodes_.joined(seat_of(process)), effects);
        return send(process.node, Go{}, effects);
    }
    change_phase(process, Phase::ready);
    const bool all = std::all_of(view_.processes.begin(), view_.processes.end(),
                                 [](const ProcessView& p) { return p.phase == Phase::ready; });
    if (all && view_.stage == Stage::preparing) begin_training(effects);
}

void Coordinator::begin_training(Effects& effects) {
    if (!begin_groups(effects)) return;
    enter(Stage::training, std::nullopt, effects);
    view_.training_began = view_.now;
    for (ProcessView& process : view_.processes) {
        change_phase(process, Phase::working);
        if (process.node.role == Role::worker) send(process.node, Go{}, effects);
    }
}

void Coordinator::on_status(ProcessView& process, Status&& status, Effects& effects) {
    process.last = with_earlier(process.node, std::move(status));
    save_when_due(effects);
}

void Coordinator::on_stopped(ProcessView& process, Stopped&& stopped, Effects& effects) {
    process.last = with_earlier(process.node, std::move(stopped.last));
    remember(process.node, std::move(stopped.method_state));
    if (stopped.failed) {
        // Nobody here told it to stop: it has given this coordinator up, which was silent.
        const bool gave_up = stopped.code == ErrorCode::cancelled && !error_ &&
                             view_.training_began && !asked_to_leave_.contains(process.node);
        const ErrorCode code = gave_up ? ErrorCode::peer_lost : stopped.code;
        Failure failure = failure_of(process, code, std::move(stopped.error));
        failure.told_by_itself = true;
        return lose(process, std::move(failure), effects);
    }
    const bool expected = process.node.role == Role::shard ? view_.stage == Stage::stopping
                                                           : view_.training_began.has_value();
    if (!expected && view_.stage != Stage::stopping) {
        Failure failure =
            failure_of(process, ErrorCode::peer_lost,
                       "stopped before it was asked to; if this coordinator was silent for long, "
                       "that is why, and its log says so");
        failure.told_by_itself = true;
        return lose(process, std::move(failure), effects);
    }
    change_phase(process, Phase::stopped);
    if (asked_to_leave_.contains(process.node)) forget_losses(process);
    left_its_node(process, effects);
    written(process.node, effects);
    advance(effects);
}

void Coordinator::on_timer(const TimerFired& timer, Effects& effects) {
    if (timer.tag.kind == kTick) return tick(effects);
    if (saving_timer_ == timer.id) return saving_deadline_passed(effects);
    if (stage_timer_ != timer.id) return;
    stage_timer_.reset();
    stage_deadline_passed(effects);
}

void Coordinator::tick(Effects& effects) {
    const Nanos interval = options_.job.heartbeat_interval;
    const Nanos gap = view_.now - last_tick_;
    last_tick_ = view_.now;
    effects.after(interval, {kTick, 0});
    if (gap > options_.job.peer_deadline / 2 + interval) return forgive_own_absence(gap, effects);
    form_groups(nodes_.tick(view_.now), effects);
    for (ProcessView& process : view_.processes) {
        if (!process.live()) continue;
        if (is_late_to_prepare(process)) {
            const std::string text =
                fmt::format("not ready {:.1f} s (deadlines.start_s) after its hello; {}",
                            as_seconds(options_.job.start_deadline), doing(process));
            lose(process, failure_of(process, ErrorCode::timed_out, text), effects);
            continue;
        }
        const Nanos silence = view_.now - process.heard;
        if (silence <= options_.job.peer_deadline) continue;
        const std::string text = fmt::format(
            "no sign of life for {:.1f} s (deadlines.peer_s = {:.1f} s): frozen, starved, or cut "
            "off "
            "from the coordinator on {}; {}",
            as_seconds(silence), as_seconds(options_.job.peer_deadline), options_.host,
            doing(process));
        lose(process, failure_of(process, ErrorCode::timed_out, text), effects);
        if (view_.stage == Stage::finished) return;
    }
}

// The coordinator itself was away (suspended, starved): nobody's silence counts for that long; nor
// does it against deadlines, since all may have been paused with it.
void Coordinator::forgive_own_absence(Nanos gap, Effects& effects) {
    effects.log(LogLevel::warning,
                fmt::format("the coordinator itself was suspended for {:.1f} s", as_seconds(gap)));
    for (ProcessView& process : view_.processes) {
        process.heard = std::min(view_.now, process.heard + gap);
        if (process.phase == Phase::preparing) {  // it has deadlines.start_s
            process.since = std::min(view_.now, process.since + gap);
        }
    }
    const auto postpone = [&](std::optional<TimerId>& timer, Time& due, TimerKind kind) {
        if (!timer) return;
        due += gap;
        effects.cancel(*timer);
        timer = effects.after(std::max<Nanos>(due - view_.now, Nanos{0}), {kind, 0});
    };
    postpone(stage_timer_, stage_due_, kStageDeadline);
    postpone(saving_timer_, saving_due_, kSavingDeadline);
}

void Coordinator::lose(ProcessView& process, Failure failure, Effects& effects) {
    if (process.phase == Phase::stopped && !failure.told_by_itself &&
        failure.code == ErrorCode::peer_lost) {
        return;  // it had said its last word
    }
    if (process.phase == Phase::lost) return;
    const NodeId node = process.node;
    process.reason = failure.text;
    const bool was_live = process.live();
    change_phase(process, Phase::lost);
    forget_losses(process);
    if (node.role == Role::worker) written(node, effects);
    // Said in full at once: a launcher may end this process too before the run's last words.
    const std::string where =
        failure.host.empty() ? "" : fmt::format(" (pid {} on {})", failure.process, failure.host);
    effects.log(LogLevel::warning,
                fmt::format("{} lost: {}{}", to_string(node), failure.text, where));
    const Error error = fail(failure.code, to_string(node) + ": " + failure.text);
    const std::string ends_run = why_it_ends_the_run(failure);
    view_.failures.push_back(std::move(failure));
    const PeerChange change{.node = node,
                            .incarnation = process.incarnation,
                            .up = false,
                            .reason = process.reason,
                            .endpoint = process.endpoint};
    for (const ProcessView& other : view_.processes) {
        if (other.live()) send(other.node, change, effects);
    }
    // Should it be frozen only, this is the first it hears when it comes back.
    if (was_live) send(node, change, effects);
    left_its_node(process, effects);
    if (view_.stage == Stage::stopping) {
        if (!error_) error_ = error;
        return advance(effects);
    }
    if (view_.training_began && node.role == Role::worker && error.code != ErrorCode::internal) {
        if (!ends_run.empty() && view_.stage == Stage::training) {
            return end_training(ends_run, error, effects);
        }
        return advance(effects);
    }
    abort(error, effects);
}

// Of a worker, without which others could go on; empty: they do.
std::string Coordinator::why_it_ends_the_run(const Failure& failure) const {
    const std::string name = to_string(failure.node);
    if (failure.told_by_itself && failure.code == ErrorCode::not_finite &&
        options_.job.on_not_finite == OnNotFinite::stop) {
        return name + " found NaN or Inf and conflict.on_not_finite = \"stop\"";
    }
    if (options_.job.on_worker_loss == OnLoss::stop) {
        return name + " was lost and on_loss.worker = \"stop\"";
    }
    return "";
}

void Coordinator::change_phase(ProcessView& process, Phase phase) {
    process.phase = phase;
    process.since = view_.now;
}

Failure Coordinator::failure_of(const ProcessView& process, ErrorCode code,
                                std::string text) const {
    Failure failure;
    failure.node = process.node;
    failure.host = process.endpoint.host;
    failure.process = process.process;
    failure.code = code;
    failure.text = std::move(text);
    failure.step = static_cast<std::uint64_t>(process.value("steps").value_or(0));
    failure.at = view_.now;
    return failure;
}

void Coordinator::send(NodeId to, Body body, Effects& effects) const {
    Message message;
    message.envelope.to = to;
    message.envelope.request_class = RequestClass::control;
    message.body = std::move(body);
    effects.send(to, std::move(message));
}

}  // namespace detente
