#include "launch/coordinator_loop.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <random>
#include <utility>

#include "common/build_id.h"
#include "common/partition/task_placement.h"

namespace detente {

namespace asio = boost::asio;
using ErrorOfAsio = boost::system::error_code;

namespace {

// Between a control connection's end and the news of how its process ended.
constexpr std::chrono::seconds kGrace{1};
// After the last word, how long processes may take to go before they are killed: in order, and
// where the run failed (a lost server must end the job within 10 s, all told).
constexpr std::chrono::seconds kExitDeadline{5};
constexpr std::chrono::seconds kFailedExitDeadline{1};

CoordinatorOptions node_options(const CoordinatorLoopOptions& options) {
    CoordinatorOptions node;
    node.job = options.job;
    node.job_text = options.job_text;
    node.metrics = options.model.metrics;
    node.model_json = to_json(options.model);
    node.tasks = options.model.tasks;
    node.trained = trained_tasks(options.plan);
    node.training_samples = options.model.training_samples;
    node.checkpoint_dir = options.run.checkpoint_dir();
    node.first_checkpoint = options.first_checkpoint;
    node.resumed_from = options.resumed_from;
    node.samples_before = options.samples_before;
    node.methods = options.methods;
    node.workers_keep_vectors = options.workers_keep_vectors;
    node.host = options.host;
    return node;
}

Message greeting_of(const CoordinatorLoopOptions& options) {
    Message greeting;
    greeting.envelope.generation = options.generation;
    greeting.envelope.build = build_id();
    Welcome welcome;
    welcome.job = options.job_text;
    welcome.model = options.run.path;
    welcome.host = options.host;
    welcome.build = build_description();
    greeting.body = std::move(welcome);
    return greeting;
}

}  // namespace

CoordinatorLoop::CoordinatorLoop(CoordinatorLoopOptions options, Callbacks callbacks)
    : options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      node_(node_options(options_)),
      control_(
          loop_, greeting_of(options_),
          {.received = [this](Message&& message) { deliver(Received{std::move(message)}); },
           .closed = [this](NodeId node, const std::string& reason) { link_closed(node, reason); },
           .warn = [this](const std::string& text) { callbacks_.log(LogLevel::warning, text); }}),
      http_(
          loop_, [this](const std::string& path) { return answer_of(node_.view(), path); },
          [this](const HttpPost& post, HttpRespond respond) { posted(post, std::move(respond)); }),
      processes_(loop_,
                 {.ended = [this](const std::string& label,
                                  const ProcessEnd& end) { process_ended(label, end); },
                  .said = [this](const std::string& label,
                                 const std::string& line) { callbacks_.said(label, line); }}),
      signals_(loop_),
      progress_timer_(loop_),
      end_timer_(loop_) {}

CoordinatorLoop::~CoordinatorLoop() { merger_.join(); }

Result<void> CoordinatorLoop::open() {
    if (auto bound = control_.listen(options_.listen_address, options_.port); bound.has_error()) {
        return bound.error();
    }
    control_.beat(sign_of_life(), options_.job.heartbeat_interval);
    if (auto bound = http_.listen(); bound.has_error()) return bound.error();
    const std::string text = fmt::format("{}\n{}\n", control_address(), options_.generation.value);
    if (auto written = write_text(options_.run.coordinator_file(), text); written.has_error()) {
        return written.error();
    }
    std::random_device random;
    token_.clear();
    for (int i = 0; i < 4; ++i) token_ += fmt::format("{:08x}", random());
    const auto secret = write_text(options_.run.token_file(), token_ + "\n", 0600);
    if (secret.has_error()) return secret.error();
    return write_text(options_.run.http_file(), http_.address() + "\n");
}

std::string CoordinatorLoop::control_address() const {
    const std::string& told = options_.advertise_address;
    const bool any = options_.listen_address == "0.0.0.0";
    return fmt::format("{}:{}",
                       !told.empty() ? told
                       : any         ? "127.0.0.1"
                                     : options_.listen_address,
                       control_.port());
}

Result<void> CoordinatorLoop::start(const std::string& label, std::vector<std::string> arguments,
                                    std::vector<NodeId> nodes) {
    ProcessSpec spec;
    spec.label = label;
    spec.arguments = std::move(arguments);
    spec.log_file = options_.run.log_file(label);
    const Result<pid_t> pid = processes_.start(spec);
    if (pid.has_error()) return pid.error();
    locals_[label].nodes = std::move(nodes);
    return {};
}

Outcome CoordinatorLoop::run() {
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) signals_.add(number);
    struct sigaction inherited {};
    ::sigaction(SIGTSTP, nullptr, &inherited);
    if (inherited.sa_handler != SIG_IGN) signals_.add(SIGTSTP);
    wait_for_signal();
    deliver(Started{});
    show_progress();
    loop_.run();
    merger_.join();
    return outcome_;
}

Time CoordinatorLoop::now() const {
    return Time{std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now() - start_)};
}

// ---- events and effects ----

void CoordinatorLoop::deliver(Event event) {
    asio::post(loop_, [this, event = std::move(event)]() mutable { dispatch(std::move(event)); });
}

void CoordinatorLoop::dispatch(Event&& event) {
    if (finished_) return;
    node_.on(std::move(event), now(), effects_);
    std::vector<Effect> released;
    std::swap(released, effects_.buffered());
    for (Effect& effect : released) apply(std::move(effect));
    after_event();
}

void CoordinatorLoop::apply(Effect&& effect) {
    if (auto* sent = std::get_if<SendEffect>(&effect)) {
        send(sent->to, std::move(sent->message));
    } else if (const auto* timer = std::get_if<TimerEffect>(&effect)) {
        auto& slot = timers_[timer->id.value];
        slot = std::make_unique<asio::steady_timer>(loop_, timer->delay);
        slot->async_wait([this, id = timer->id, tag = timer->tag](const ErrorOfAsio& cancelled) {
            if (cancelled) return;
            timers_.erase(id.value);
            dispatch(TimerFired{id, tag});
        });
    } else if (const auto* cancel = std::get_if<CancelTimerEffect>(&effect)) {
        timers_.erase(cancel->id.value);
    } else if (const auto* log = std::get_if<LogEffect>(&effect)) {
        callbacks_.log(log->level, log->text);
    } else if (auto* finish = std::get_if<FinishEffect>(&effect)) {
        finished_ = true;
        outcome_ = std::move(finish->outcome);
        wind_down();
    }
}

void CoordinatorLoop::fill(Message& message, NodeId from, NodeId to) const {
    message.envelope.from = from;
    message.envelope.to = to;
    message.envelope.generation = options_.generation;
    message.envelope.build = build_id();
}

void CoordinatorLoop::send(NodeId to, Message&& message) {
    fill(message, kCoordinator, to);
    const auto* checkpoint = std::get_if<CheckpointRequest>(&message.body);
    if (to == kMerger && checkpoint != nullptr) return merge(*checkpoint);
    if (to == kEvaluator && checkpoint != nullptr) return evaluate(*checkpoint);
    if (const auto* changed = std::get_if<PolicyChanged>(&message.body)) {
        if (!changed->error.empty()) {
            return controlled(changed->request, fail(changed->code, changed->error));
        }
        return controlled(changed->request,
                          fmt::format("decision {}:{}{}", changed->sequence.lead_epoch.value,
                                      changed->sequence.number,
                                      changed->later ? ", made when every step that has begun is "
                                                       "settled; the ledgers say when, or that the "
                                                       "run ended before"
                                                     : ""));
    }
    if (checkpoint != nullptr) {
        // Shards write into it; they report what goes wrong.
        std::error_code ignored;
        std::filesystem::create_directories(checkpoint->directory, ignored);
    }
    control_.send(to, message);
}

Message CoordinatorLoop::sign_of_life() const {
    Status status;
    status.activity = "coordinating";
    status.values.push_back({std::string(kProcessValue), static_cast<double>(::getpid())});
    Message message;
    message.body = std::move(status);
    fill(message, kCoordinator, kCoordinator);
    return message;
}

void CoordinatorLoop::answer(NodeId from, Body body) {
    Message message;
    message.body = std::move(body);
    fill(message, from, kCoordinator);
    deliver(Received{std::move(message)});
}

// What the node decided about processes: one that is lost is not to come back.
void CoordinatorLoop::after_event() {
    callbacks_.seen(node_.view());
    if (node_.view().stage != shown_stage_) {
        shown_stage_ = node_.view().stage;
        callbacks_.stage(node_.view());
    }
    for (const ProcessView& process : node_.view().processes) {
        if (process.phase != Phase::lost) continue;
        const std::string label = label_of(process.node);
        if (!label.empty() && !locals_.at(label).ended) processes_.signal(label, SIGKILL);
        if (control_.connected(process.node)) control_.drop(process.node);
    }
    greet();
}

// Who connects from now on is told of places that are free and whose last process is gone for good:
// news of its end must not be taken for that of the next one.
void CoordinatorLoop::greet() {
    std::vector<Endpoint> free = node_.vacancies();
    std::erase_if(free, [this](const Endpoint& place) {
        const std::string label = label_of(place.node);
        return control_.connected(place.node) || (!label.empty() && !locals_.at(label).told);
    });
    std::vector<std::pair<NodeId, Incarnation>> offers;
    offers.reserve(free.size());
    for (const Endpoint& place : free) offers.emplace_back(place.node, place.incarnation);
    if (offers == offered_) return;
    offered_ = std::move(offers);
    Message greeting = greeting_of(options_);
    std::get<Welcome>(greeting.body).peers = std::move(free);
    control_.greet(std::move(greeting));
}

// ---- processes ----

std::string CoordinatorLoop::label_of(NodeId node) const {
    for (const auto& [label, local] : locals_) {
        if (std::find(local.nodes.begin(), local.nodes.end(), node) != local.nodes.end()) {
            return label;
        }
    }
    return "";
}

void CoordinatorLoop::process_ended(const std::string& label, const ProcessEnd& end) {
    if (label.starts_with("evaluator:")) return evaluated(label, end);
    Local& local = locals_.at(label);
    local.ended = true;
    local.how = end.text();
    ended_.push_back({label, end, processes_.last_lines(label)});
    const std::vector<std::string>& lines = ended_.back().last_lines;
    const auto telling = std::find_if(lines.rbegin(), lines.rend(), matters);
    if (telling != lines.rend()) local.how += ": " + *telling;
    tell_if_gone(label);
    if (finished_) wind_down();
}

// What a process said before it died is still on its way until its connection ends: only both
// together are the news.
void CoordinatorLoop::tell_if_gone(const std::string& label) {
    Local& local = locals_.at(label);
    const bool connected = std::any_of(local.nodes.begin(), local.nodes.end(),
                                       [&](NodeId node) { return control_.connected(node); });
    if (!local.ended || connected || local.told) return;
    local.told = true;
    if (local.grace) local.grace->cancel();
    for (const NodeId node : local.nodes) deliver(PeerDown{node, Incarnation{1}, local.how});
}

void CoordinatorLoop::link_closed(NodeId node, const std::string& reason) {
    const std::string label = label_of(node);
    const std::string how = "its control connection closed: " + reason;
    // Not started here, or in the place of one that was and is gone.
    if (label.empty() || locals_.at(label).told) {
        // Only who started it knows how it ended.
        deliver(PeerDown{node, Incarnation{1},
                         how + " (killed, crashed, or cut off: its launcher may say which)"});
        if (finished_) wind_down();
        return;
    }
    Local& local = locals_.at(label);
    if (local.ended) {
        tell_if_gone(label);
        if (finished_) wind_down();
        return;
    }
    if (local.grace) return;
    local.grace = std::make_unique<asio::steady_timer>(loop_, kGrace);
    local.grace->async_wait([this, label, how](const ErrorOfAsio& cancelled) {
        Local& late = locals_.at(label);
        if (cancelled || late.told) return;
        late.told = true;
        for (const NodeId lost : late.nodes) deliver(PeerDown{lost, Incarnation{1}, how});
    });
}

// ---- signals, progress, the end ----

void CoordinatorLoop::wait_for_signal() {
    signals_.async_wait([this](const ErrorOfAsio& cancelled, int number) {
        if (cancelled) return;
        if (number == SIGTSTP) {
            pause();
            return wait_for_signal();
        }
        const bool first = signal_ == 0;
        if (first) signal_ = number;
        const char* name = ::sigabbrev_np(number);
        answer(kCoordinator,
               Stop{.reason = fmt::format("{}SIG{}", first ? "" : "a second signal, ", name),
                    .drain = first});
        wait_for_signal();
    });
}

// The others are in process groups of their own, which a terminal's Ctrl-Z does not reach.
void CoordinatorLoop::pause() {
    processes_.signal_all(SIGSTOP);
    // As the terminal would, until somebody continues this process: not at all where nobody could,
    // since no shell has this process group.
    struct sigaction ours {};
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    ::sigaction(SIGTSTP, &standard, &ours);
    ::raise(SIGTSTP);
    ::sigaction(SIGTSTP, &ours, nullptr);
    processes_.signal_all(SIGCONT);
}

void CoordinatorLoop::show_progress() {
    if (callbacks_.progress) callbacks_.progress(node_.view());
    progress_timer_.expires_after(callbacks_.progress_interval);
    progress_timer_.async_wait([this](const ErrorOfAsio& cancelled) {
        if (!cancelled && !finished_) show_progress();
    });
}

// Ends the loop when everybody is gone, by force if they take too long.
void CoordinatorLoop::wind_down() {
    processes_.signal(evaluator_, SIGKILL);
    while (!controls_.empty()) {
        controlled(controls_.begin()->first, fail(ErrorCode::peer_lost, "the run has ended"));
    }
    const auto stop = [this] {
        processes_.kill_all();
        control_.close();
        http_.close();
        ErrorOfAsio ignored;
        signals_.cancel(ignored);
        loop_.stop();
    };
    const auto& processes = node_.view().processes;
    const bool linked = std::any_of(processes.begin(), processes.end(), [&](const auto& process) {
        return control_.connected(process.node);
    });
    if (processes_.count_running() == 0 && !linked) return asio::post(loop_, stop);
    if (end_timer_.expiry() > std::chrono::steady_clock::now()) return;
    end_timer_.expires_after(outcome_.failed ? kFailedExitDeadline : kExitDeadline);
    end_timer_.async_wait([this, stop](const ErrorOfAsio& cancelled) {
        if (cancelled) return;
        if (processes_.count_running() != 0 && !outcome_.failed) {
            callbacks_.log(LogLevel::warning,
                           fmt::format("{} processes did not exit within {} s and were killed",
                                       processes_.count_running(), kExitDeadline.count()));
        }
        stop();
    });
}

}  // namespace detente
