// Workers that leave a running job, and workers that join it: in the place of one that has left or
// was lost, as its next incarnation, or in one that nobody has had yet, where the job has more
// places than workers.
#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "common/build_id.h"
#include "launch/coordinator.h"

namespace detente {

namespace {

// What a worker counts from its own start.
bool adds_up(const std::string& name) {
    return name == "steps" || name == "samples" || name == "compute_ms" || name == "wait_ms" ||
           name.starts_with("cosine.sum") || name.starts_with("refused.") ||
           name == "pull.told_steps" || name == "pull.torn_steps" || name == "pull.torn_sum" ||
           name == "cosine.count" || name == "cosine.conflict_steps" ||
           name.starts_with("steps.") || name.starts_with("step_time.") ||
           name.starts_with("sync.") || name.starts_with("interference.") ||
           name.starts_with("norm.sum.") || name.starts_with("weight.sum.");
}

bool is_vacant(const ProcessView& process) {
    return process.node.role == Role::worker &&
           (process.phase == Phase::lost || process.phase == Phase::stopped);
}

}  // namespace

// The last one stays: without it the job would end, which is another wish.
void Coordinator::on_drain(const PeerChange& leaving, Effects& effects) {
    const ProcessView* process = view_.find(leaving.node);
    const auto working =
        std::count_if(view_.processes.begin(), view_.processes.end(),
                      [](const ProcessView& p) { return p.node.role == Role::worker && p.live(); });
    if (process == nullptr || process->node.role != Role::worker || !process->live() ||
        view_.stage != Stage::training || working < 2) {
        return;
    }
    asked_to_leave_.insert(leaving.node);
    effects.log(LogLevel::information, fmt::format("{} is asked to leave, by {}",
                                                   to_string(leaving.node), leaving.reason));
    send(leaving.node, Stop{.reason = "asked to leave by " + leaving.reason, .drain = true},
         effects);
}

std::vector<Endpoint> Coordinator::vacancies() const {
    std::vector<Endpoint> places;
    if (view_.stage != Stage::training) return places;
    for (const ProcessView& process : view_.processes) {
        if (!is_vacant(process)) continue;
        Endpoint place;
        place.node = process.node;
        place.incarnation = next(process.incarnation);
        places.push_back(std::move(place));
    }
    for (std::uint32_t i = options_.job.workers; i < options_.job.most_workers(); ++i) {
        if (view_.find(node_of(WorkerId{i})) != nullptr) continue;
        Endpoint place;
        place.node = node_of(WorkerId{i});
        place.incarnation = Incarnation{1};
        places.push_back(std::move(place));
    }
    return places;
}

ProcessView* Coordinator::open_place(NodeId node, const Hello& hello) {
    if (view_.stage != Stage::training || node.role != Role::worker ||
        node.index >= options_.job.most_workers() || hello.build != build_description()) {
        return nullptr;
    }
    ProcessView process;
    process.node = node;
    process.phase = Phase::stopped;
    process.incarnation = Incarnation{0};
    view_.processes.push_back(std::move(process));
    return &view_.processes.back();
}

bool Coordinator::may_take_place(const ProcessView& process, const Hello& hello) const {
    return view_.stage == Stage::training && is_vacant(process) &&
           hello.endpoint.incarnation > process.incarnation && hello.build == build_description();
}

// What a worker last saw of its tasks would for ever stand beside what those see that go on.
void Coordinator::forget_losses(ProcessView& process) const {
    const bool others = std::any_of(
        view_.processes.begin(), view_.processes.end(), [&process](const ProcessView& other) {
            return other.node.role == Role::worker && other.node != process.node && other.live();
        });
    if (others) process.last.losses.clear();
}

void Coordinator::take_place(ProcessView& process, Hello&& hello, Effects& effects) {
    for (const NamedValue& value : process.last.values) {
        if (adds_up(value.name)) earlier_[process.node][value.name] = value.value;
    }
    if (!process.last.cosine_bins.empty()) {
        earlier_bins_[process.node] = process.last.cosine_bins;
    }
    process.endpoint = std::move(hello.endpoint);
    process.incarnation = process.endpoint.incarnation;
    process.process = hello.process;
    process.heard = view_.now;
    process.reason.clear();
    asked_to_leave_.erase(process.node);
    last_words_.erase(WorkerId{process.node.index});
    process.last = with_earlier(process.node, {});
    change_phase(process, Phase::preparing);
    effects.log(
        LogLevel::information,
        fmt::format("{} joins, as incarnation {}: process {} on {}", to_string(process.node),
                    process.incarnation.value, process.process, process.endpoint.host));
    Welcome welcome;
    welcome.job = options_.job_text;
    welcome.model = options_.model_json;
    for (const ProcessView& other : view_.processes) welcome.peers.push_back(other.endpoint);
    // It goes on from what its place's last worker remembered, if that left in order.
    const auto remembered = method_states_.find(process.node);
    if (remembered != method_states_.end()) welcome.method_state = remembered->second;
    send(process.node, std::move(welcome), effects);
}

// ---- nodes ----

Endpoint Coordinator::seat_of(const ProcessView& process) const {
    Endpoint seat = process.endpoint;
    seat.node = process.node;
    if (!options_.hosts_are_nodes) seat.host = "simulated";
    return seat;
}

bool Coordinator::begin_groups(Effects& effects) {
    if (!nodes_.designated()) return true;
    std::vector<Endpoint> workers;
    for (const ProcessView& process : view_.processes) {
        if (process.node.role == Role::worker) workers.push_back(seat_of(process));
    }
    const auto groups = nodes_.begin(workers);
    if (groups.has_error()) {
        abort(groups.error(), effects);
        return false;
    }
    form_groups(*groups, effects);
    return true;
}

void Coordinator::form_groups(const std::vector<Group>& groups, Effects& effects) {
    for (const Group& group : groups) {
        effects.log(LogLevel::information,
                    fmt::format("in step, epoch {}: {}", group.epoch.value,
                                group.names_of((std::uint64_t{1} << group.members.size()) - 1)));
        for (const WorkerId member : group.members) {
            send(node_of(member), FormGroup{group}, effects);
        }
    }
    if (!groups.empty()) view_.groups = nodes_.groups();
}

void Coordinator::left_its_node(const ProcessView& process, Effects& effects) {
    if (!nodes_.designated() || process.node.role != Role::worker) return;
    const bool in_order = process.phase == Phase::stopped;
    form_groups(nodes_.gone(WorkerId{process.node.index}, in_order), effects);
    view_.groups = nodes_.groups();
}

// Lateness and losses are borne, as long as there are groups to go on in.
void Coordinator::on_lost_group(WorkerId from, const LostGroup& lost, Effects& effects) {
    form_groups(nodes_.lost(from, lost, view_.now), effects);
    const bool borne = lost.code == ErrorCode::timed_out || lost.code == ErrorCode::peer_lost ||
                       lost.code == ErrorCode::wrong_epoch;
    if (not_in_step_ || (borne && !nodes_.gave_up())) return;
    not_in_step_ = fail(lost.code, to_string(node_of(from)) + ": " + lost.error);
}

// A run that was to average and never could has trained something else than it was asked to.
std::optional<Error> Coordinator::never_in_step() const {
    const auto rounds = in_step(view_);
    if (!nodes_.designated() || (rounds && rounds->member_rounds > 0)) return std::nullopt;
    std::optional<Error> why = not_in_step_;
    for (const Failure& failure : view_.failures) {
        const bool cannot = failure.told_by_itself && failure.code == ErrorCode::not_supported;
        if (!why && cannot) {
            why = fail(failure.code, to_string(failure.node) + ": " + failure.text);
        }
    }
    if (!why) return std::nullopt;
    const ErrorCode code =
        why->code == ErrorCode::over_limit ? ErrorCode::not_supported : why->code;
    return fail(code,
                "the layers of [sync] were never in step, since no average of a node came "
                "about; what was trained is asynchronous. The first reason given: " +
                    why->text);
}

// Before training the stage's own deadline holds.
bool Coordinator::is_late_to_prepare(const ProcessView& process) const {
    return view_.stage == Stage::training && process.phase == Phase::preparing &&
           view_.now - process.since > options_.job.start_deadline;
}

Status Coordinator::with_earlier(NodeId node, Status status) const {
    const auto earlier = earlier_.find(node);
    if (earlier == earlier_.end()) return status;
    if (const auto bins = earlier_bins_.find(node); bins != earlier_bins_.end()) {
        status.cosine_bins.resize(bins->second.size());
        for (std::size_t i = 0; i < bins->second.size(); ++i) {
            status.cosine_bins[i] += bins->second[i];
        }
    }
    for (const auto& counted : earlier->second) {
        const auto same = std::find_if(
            status.values.begin(), status.values.end(),
            [&counted](const NamedValue& value) { return value.name == counted.first; });
        if (same != status.values.end()) {
            same->value += counted.second;
        } else {
            status.values.push_back({counted.first, counted.second});
        }
    }
    return status;
}

}  // namespace detente
