#include "launch/role_link.h"

#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "common/build_id.h"
#include "launch/job.h"
#include "launch/run_directory.h"

namespace detente {

namespace {

// A process whose coordinator is gone, or that was told to stop now, has this long.
constexpr std::chrono::seconds kLastMoments{5};
constexpr std::chrono::seconds kFlushDeadline{2};

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

RoleLink::~RoleLink() { control_.reset(); }  // its thread calls into this object

Result<Job> RoleLink::begin(const std::string& label) {
    auto job = parse_job(control_->job_text(), "the coordinator's job");
    if (job.has_error()) return job.error();
    heartbeat_interval_ = job->heartbeat_interval;
    start_deadline_ = job->start_deadline;
    if (log_to_file_) {
        auto log = ProcessLog::to_file(RunDirectory{control_->run_dir()}.log_file(label), label);
        if (log.has_error()) return log.error();
        log_ = std::move(*log);
    }
    if (!placement_.empty()) log_.write(LogLevel::information, placement_);
    control_->start({.received = [this](Message&& message) { received(std::move(message)); },
                     .closed = [this](const std::string& reason) { closed(reason); }});
    return job;
}

void RoleLink::hello(NodeId node, Endpoint endpoint, bool has_weights) {
    said_hello_.insert(node);
    Hello hello;
    hello.endpoint = std::move(endpoint);
    hello.process = static_cast<std::uint64_t>(::getpid());
    hello.build = build_description();
    hello.has_weights = has_weights;
    Message message;
    message.envelope.from = node;
    message.envelope.to = kCoordinator;
    message.envelope.generation = control_->generation();
    message.envelope.build = build_id();
    message.body = std::move(hello);
    control_->send(std::move(message));
}

void RoleLink::announce(const std::string& activity) {
    if (!activity.empty()) log_.write(LogLevel::information, activity);
    for (const NodeId node : nodes_) control_->announce(node, activity, heartbeat_interval_);
}

void RoleLink::received(Message&& message) {
    const std::lock_guard lock(mutex_);
    const NodeId to = message.envelope.to;
    if (std::holds_alternative<Welcome>(message.body) && !welcome_) {
        welcome_ = message;
        changed_.notify_all();
    }
    if (const auto* stop = std::get_if<Stop>(&message.body)) {
        if (!stop->drain) end_soon_or_be_ended("told to stop at once: " + stop->reason);
        if (!over_) over_ = fail(ErrorCode::cancelled, stop->reason);
        changed_.notify_all();
    }
    const auto* change = std::get_if<PeerChange>(&message.body);
    if (change != nullptr && change->node == to && !change->up) {
        return abandoned("the coordinator gave this process up as lost: " + change->reason);
    }
    // Welcomes are handed over by the main thread, once the node is there.
    if (std::holds_alternative<Welcome>(message.body)) return;
    const auto sink = sinks_.find(to);
    if (sink != sinks_.end()) return sink->second->post(Received{std::move(message)});
    early_[to].emplace_back(Received{std::move(message)});
}

void RoleLink::closed(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    abandoned("the coordinator is gone: " + reason);
}

// Under the mutex. The first reason is the true one: whoever was given up is cut off next.
void RoleLink::abandoned(const std::string& text) {
    if (abandoned_) return;
    abandoned_ = true;
    end_soon_or_be_ended(text);
    if (!over_) over_ = fail(ErrorCode::peer_lost, text);
    changed_.notify_all();
    for (const auto& [node, sink] : sinks_) {
        Message message;
        message.envelope.from = kCoordinator;
        message.envelope.to = node;
        message.body = Stop{.reason = text, .drain = false};
        sink->post(Received{std::move(message)});
    }
}

void RoleLink::end_soon_or_be_ended(const std::string& why) {
    control_->after(kLastMoments, [log = log_, why] {
        log.write(LogLevel::error, why + "; still here after " +
                                       std::to_string(kLastMoments.count()) + " s: exiting");
        ::_exit(value_of(ExitCode::process_lost));
    });
}

Result<Briefing> RoleLink::wait_for_welcome() {
    Briefing briefing;
    {
        std::unique_lock lock(mutex_);
        // The coordinator's own deadline names who is missing; this one is for its silence.
        const auto limit = start_deadline_ + std::chrono::seconds(30);
        changed_.wait_for(lock, limit, [this] { return welcome_ || over_; });
        if (over_) return *over_;
        if (!welcome_) {
            return fail(ErrorCode::timed_out, "the coordinator sent no welcome in time");
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
    control_->flush(kFlushDeadline);
    return exit_code_of(error.code);
}

ExitCode RoleLink::end(const std::vector<Outcome>& outcomes) {
    bool abandoned = false;
    {
        const std::lock_guard lock(mutex_);
        sinks_.clear();  // the loops are about to go
        abandoned = abandoned_;
    }
    control_->flush(kFlushDeadline);
    for (const Outcome& outcome : outcomes) {
        if (!outcome.failed) continue;
        log_.write(LogLevel::error, outcome.error.text);
        // Nodes were told to stop; that nobody asked for it in order, only the link knows.
        const bool cut_off = abandoned && outcome.error.code == ErrorCode::cancelled;
        return cut_off ? ExitCode::process_lost : exit_code_of(outcome.error.code);
    }
    log_.write(LogLevel::information, "ended");
    return ExitCode::ok;
}

}  // namespace detente
