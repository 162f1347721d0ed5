#include "launch/role_link.h"

#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "common/build_id.h"
#include "launch/job.h"
#include "launch/machine.h"
#include "launch/run_directory.h"

namespace detente {

namespace {

// A process whose coordinator is gone, or that was told to stop now, has this long.
constexpr std::chrono::seconds kLastMoments{5};
// Until the coordinator has the last word and has closed its end too.
constexpr std::chrono::seconds kLeaveDeadline{2};
// Silence of a coordinator ends the whole job, a worker's only its part: it may last longer. And
// who is cut off from a coordinator that lives is given up by that first, with its reason.
constexpr int kPeerDeadlinesOfCoordinator = 2;

double seconds(Nanos duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

std::string this_host() {
    char name[256] = "localhost";
    ::gethostname(name, sizeof(name) - 1);
    return name;
}

Result<std::unique_ptr<ControlClient>> connect_to(const std::string& coordinator) {
    return ControlClient::connect(coordinator, std::chrono::seconds(20));
}

RoleLink::RoleLink(std::unique_ptr<ControlClient> control, const RoleOptions& options)
    : control_(std::move(control)),
      log_to_file_(options.log_to_file),
      placement_(options.placement) {}

// The link's thread calls into this object, and through it into the link: both are whole until it
// has ended.
RoleLink::~RoleLink() { control_->stop(); }

Result<Job> RoleLink::begin() {
    auto job = parse_job(control_->job_text(), "the coordinator's job");
    if (job.has_error()) return job.error();
    heartbeat_interval_ = job->heartbeat_interval;
    start_deadline_ = job->start_deadline;
    peer_deadline_ = job->peer_deadline;
    control_->start({.received = [this](Message&& message) { received(std::move(message)); },
                     .closed = [this](const std::string& reason) { closed(reason); }});
    return job;
}

Result<void> RoleLink::open_log(const std::string& label) {
    if (log_to_file_) {
        auto log = ProcessLog::to_file(RunDirectory{control_->run_dir()}.log_file(label), label);
        if (log.has_error()) return log.error();
        const std::lock_guard lock(mutex_);  // the link's thread may be about to write
        log_ = std::move(*log);
    }
    if (!placement_.empty()) log_.write(LogLevel::information, placement_);
    return {};
}

void RoleLink::hello(NodeId node, Endpoint endpoint, bool has_weights) {
    // Until it has heard a hello, a coordinator sends no sign of life.
    if (said_hello_.empty()) watch_coordinator();
    said_hello_.insert(node);
    Hello hello;
    hello.endpoint = std::move(endpoint);
    hello.process = static_cast<std::uint64_t>(::getpid());
    hello.build = build_description();
    hello.has_weights = has_weights;
    hello.memory_bytes = memory_of_this_machine();
    Message message;
    message.envelope.from = node;
    message.envelope.to = kCoordinator;
    message.envelope.generation = control_->generation();
    message.envelope.build = build_id();
    message.body = std::move(hello);
    control_->send(std::move(message));
}

void RoleLink::watch_coordinator() {
    const Nanos limit = kPeerDeadlinesOfCoordinator * peer_deadline_;
    control_->watch(limit, heartbeat_interval_, [this](Nanos silence) {
        const std::lock_guard lock(mutex_);
        abandoned(
            fail(ErrorCode::timed_out,
                 fmt::format("{} gave no sign of life for {:.1f} s (limit: {} times "
                             "deadlines.peer_s = {:.1f} s): frozen, starved, or cut off from this "
                             "process on {}; see whether it runs, and raise deadlines.peer_s if "
                             "it is only slow",
                             coordinator(), seconds(silence), kPeerDeadlinesOfCoordinator,
                             seconds(peer_deadline_), this_host())));
    });
}

// Under the mutex.
std::string RoleLink::coordinator() const {
    const std::string host = control_->coordinator_host();
    std::string name = "the coordinator on " + (host.empty() ? "a host not told" : host);
    if (coordinator_process_ != 0) name += fmt::format(" (process {})", coordinator_process_);
    return name;
}

void RoleLink::announce(const std::string& activity) {
    if (!activity.empty()) log_.write(LogLevel::information, activity);
    for (const NodeId node : nodes_) control_->announce(node, activity, heartbeat_interval_);
}

void RoleLink::received(Message&& message) {
    const std::lock_guard lock(mutex_);
    const NodeId to = message.envelope.to;
    // A sign of life, which the link has noted; no node's business.
    if (const auto* sign = std::get_if<Status>(&message.body)) {
        for (const NamedValue& value : sign->values) {
            if (value.name != kProcessValue) continue;
            coordinator_process_ = static_cast<std::uint64_t>(value.value);
        }
        return;
    }
    if (std::holds_alternative<Welcome>(message.body) && !welcome_) {
        welcome_ = message;
        changed_.notify_all();
    }
    if (const auto* stop = std::get_if<Stop>(&message.body)) {
        if (!stop->drain) {
            end_soon_or_be_ended("told to stop at once: " + stop->reason, ExitCode::process_lost);
        }
        told_to_stop_ = told_to_stop_ || !abandoned_;
        if (!over_) over_ = fail(ErrorCode::cancelled, stop->reason);
        changed_.notify_all();
    }
    const auto* change = std::get_if<PeerChange>(&message.body);
    if (change != nullptr && change->node == to && !change->up) {
        return abandoned(fail(ErrorCode::peer_lost,
                              coordinator() + " gave this process up as lost: " + change->reason));
    }
    // Welcomes are handed over by the main thread, once the node is there.
    if (std::holds_alternative<Welcome>(message.body)) return;
    const auto sink = sinks_.find(to);
    if (sink != sinks_.end()) return sink->second->post(Received{std::move(message)});
    early_[to].emplace_back(Received{std::move(message)});
}

void RoleLink::closed(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    abandoned(fail(ErrorCode::peer_lost,
                   fmt::format("{} is gone: its control connection closed ({}); it ended, was "
                               "killed, or is cut off from this process on {}",
                               coordinator(), reason, this_host())));
}

// Under the mutex. The first reason is the true one: whoever was given up is cut off next.
void RoleLink::abandoned(Error error) {
    if (abandoned_) return;
    end_soon_or_be_ended(error.text, exit_code_of(error.code));
    if (!over_) over_ = error;
    abandoned_ = std::move(error);
    changed_.notify_all();
    for (const auto& [node, sink] : sinks_) {
        Message message;
        message.envelope.from = kCoordinator;
        message.envelope.to = node;
        message.body = Stop{.reason = abandoned_->text, .drain = false};
        sink->post(Received{std::move(message)});
    }
}

void RoleLink::end_soon_or_be_ended(const std::string& why, ExitCode code) {
    control_->after(kLastMoments, [log = log_, why, code] {
        log.write(LogLevel::error, why + "; still here after " +
                                       std::to_string(kLastMoments.count()) + " s: exiting");
        ::_exit(value_of(code));
    });
}

Result<Briefing> RoleLink::wait_for_welcome() {
    Briefing briefing;
    {
        std::unique_lock lock(mutex_);
        // The coordinator's own deadline names who is missing, and its silence is watched: this one
        // is for one that talks and forgets. In slices: a pause of the whole job (Ctrl-Z) uses up
        // one of them at most.
        const Nanos limit = start_deadline_ + std::chrono::seconds(30);
        const auto here = [this] { return welcome_ || over_; };
        for (Nanos left = limit; !here() && left > Nanos{0}; left -= heartbeat_interval_) {
            changed_.wait_for(lock, heartbeat_interval_, here);
        }
        if (over_) return *over_;
        if (!welcome_) {
            return fail(ErrorCode::timed_out,
                        fmt::format("{} sent no welcome within {:.1f} s (deadlines.start_s and 30 "
                                    "s); its log says whom it waits for",
                                    coordinator(), seconds(limit)));
        }
        briefing.welcome = *welcome_;
    }
    const auto& welcome = std::get<Welcome>(briefing.welcome.body);
    auto job = parse_job(welcome.job, "the coordinator's job");
    if (job.has_error()) return job.error();
    auto model = model_description_from_json(welcome.model);
    if (model.has_error()) return model.error();
    auto plan = make_plan(*model, *job);
    if (plan.has_error()) return plan.error();
    briefing.job = std::make_shared<const Job>(std::move(*job));
    briefing.model = std::move(*model);
    briefing.plan = std::make_shared<const Plan>(std::move(*plan));
    return briefing;
}

void RoleLink::hand_over(NodeId node, EventSink& loop, const Message& welcome) {
    control_->announce(node, "", {});
    const std::lock_guard lock(mutex_);
    Message own = welcome;
    // The welcome that came first may have been another shard's of this process.
    own.envelope.to = node;
    loop.post(Received{std::move(own)});
    for (Event& event : early_[node]) loop.post(std::move(event));
    early_.erase(node);
    sinks_[node] = &loop;
}

ExitCode RoleLink::give_up(const Error& error) {
    log_.write(LogLevel::error, error.text);
    for (const NodeId node : nodes_) {
        control_->announce(node, "", {});
        if (!said_hello_.contains(node)) {
            Endpoint nowhere;
            nowhere.node = node;
            nowhere.host = this_host();
            hello(node, std::move(nowhere), false);
        }
        Stopped last;
        last.failed = true;
        last.code = error.code;
        last.error = error.text;
        last.last.activity = "gave up";
        Message message;
        message.envelope.from = node;
        message.envelope.to = kCoordinator;
        message.envelope.generation = control_->generation();
        message.envelope.build = build_id();
        message.body = std::move(last);
        control_->send(std::move(message));
    }
    control_->leave(kLeaveDeadline);
    return exit_code_of(error.code);
}

ExitCode RoleLink::end(const std::vector<Outcome>& outcomes) {
    std::optional<Error> abandoned;
    bool told_to_stop = false;
    {
        const std::lock_guard lock(mutex_);
        sinks_.clear();  // the loops are about to go
        abandoned = abandoned_;
        told_to_stop = told_to_stop_;
    }
    control_->leave(kLeaveDeadline);
    for (const Outcome& outcome : outcomes) {
        if (!outcome.failed) continue;
        log_.write(LogLevel::error, outcome.error.text);
        // Nodes were told to stop; that nobody asked for it in order, only the link knows.
        const bool cut_off = abandoned && outcome.error.code == ErrorCode::cancelled;
        return exit_code_of(cut_off ? abandoned->code : outcome.error.code);
    }
    // A shard has no complaint of its own: to stop at once is nothing to it.
    if (abandoned && !told_to_stop) {
        log_.write(LogLevel::error, abandoned->text);
        return exit_code_of(abandoned->code);
    }
    log_.write(LogLevel::information, "ended");
    return ExitCode::ok;
}

}  // namespace detente
