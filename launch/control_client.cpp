#include "launch/control_client.h"

#include <fmt/core.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <future>
#include <utility>

#include "common/build_id.h"
#include "common/codec/codec.h"
#include "launch/roles.h"

namespace detente {

namespace asio = boost::asio;
using ErrorOfAsio = boost::system::error_code;
using Clock = std::chrono::steady_clock;

ControlClient::ControlClient() : work_(asio::make_work_guard(loop_)) {}

namespace {

constexpr std::chrono::milliseconds kRetryInterval{100};

// Runs the loop until one operation on `socket` has ended or the deadline has passed.
struct Deadline {
    asio::io_context& loop;
    asio::ip::tcp::socket& socket;
    Clock::time_point until;

    template <class Start>
    ErrorOfAsio run(Start start) {
        bool ended = false;
        ErrorOfAsio outcome;
        start([&](const ErrorOfAsio& error, const auto&) {
            outcome = error;
            ended = true;
        });
        loop.restart();
        while (!ended && loop.run_one_until(until) != 0) {
        }
        if (ended) return outcome;
        ErrorOfAsio ignored;
        socket.close(ignored);
        // NOLINTNEXTLINE(bugprone-infinite-loop): a completion sets it inside run_one
        while (!ended) loop.run_one();
        return asio::error::timed_out;
    }
};

// Connects and reads the coordinator's greeting.
Result<Message> try_connect(asio::io_context& loop, asio::ip::tcp::socket& socket,
                            const HostPort& address, Clock::time_point until) {
    asio::ip::tcp::resolver resolver(loop);
    ErrorOfAsio error;
    const auto found = resolver.resolve(address.host, std::to_string(address.port), error);
    if (error) return fail(ErrorCode::io, error.message());
    Deadline deadline{loop, socket, until};
    error = deadline.run([&](auto done) { asio::async_connect(socket, found, done); });
    if (error) return fail(ErrorCode::io, error.message());
    std::vector<std::byte> bytes(4);
    const auto read = [&](std::byte* into, std::size_t count) {
        return deadline.run(
            [&](auto done) { asio::async_read(socket, asio::buffer(into, count), done); });
    };
    error = read(bytes.data(), 4);
    if (error) return fail(ErrorCode::io, "no greeting: " + error.message());
    const Result<std::size_t> total = stream_length(bytes);
    if (total.has_error()) return total.error();
    bytes.resize(*total);
    error = read(bytes.data() + 4, *total - 4);
    if (error) return fail(ErrorCode::io, "no greeting: " + error.message());
    return decode_stream(bytes);
}

// The coordinator ends the job with both builds in its last words, instead of waiting for a hello.
void tell_build(asio::ip::tcp::socket& socket, NodeId node) {
    Message message;
    message.envelope.from = node;
    message.envelope.to = kCoordinator;
    message.envelope.build = build_id();
    Hello hello;
    hello.endpoint.node = node;
    hello.endpoint.host = this_host();
    hello.process = static_cast<std::uint64_t>(::getpid());
    hello.build = build_description();
    message.body = std::move(hello);
    ErrorOfAsio ignored;  // this process ends with its own error in any case
    asio::write(socket, asio::buffer(encode_stream(message)), ignored);
    socket.shutdown(asio::socket_base::shutdown_send, ignored);
}

}  // namespace

Result<std::unique_ptr<ControlClient>> ControlClient::connect(
    const std::string& address, Nanos deadline, const std::optional<NodeId>& speaks_for) {
    const Result<HostPort> target = parse_address(address);
    if (target.has_error()) return target.error();
    std::unique_ptr<ControlClient> client(new ControlClient());
    const Clock::time_point until =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(deadline);
    while (true) {
        asio::ip::tcp::socket socket(client->loop_);
        const Result<Message> greeting = try_connect(client->loop_, socket, *target, until);
        if (greeting.has_value()) {
            const Envelope& from = greeting->envelope;
            const auto* welcome = std::get_if<Welcome>(&greeting->body);
            if (from.build != build_id()) {
                if (speaks_for) tell_build(socket, *speaks_for);
                const bool named = welcome != nullptr && !welcome->build.empty();
                return fail(ErrorCode::wrong_build,
                            fmt::format("the coordinator at {} on {} is of another build, \"{}\", "
                                        "than this process on {}, \"{}\"; use the same build on "
                                        "every host",
                                        address, named ? welcome->host : "its host",
                                        named ? welcome->build : "not told", this_host(),
                                        build_description()));
            }
            client->generation_ = from.generation;
            if (welcome != nullptr) {
                client->job_text_ = welcome->job;
                client->run_dir_ = welcome->model;
                client->coordinator_host_ = welcome->host;
                client->vacancies_ = welcome->peers;
            }
            client->local_address_ = socket.local_endpoint().address().to_string();
            client->connection_ = std::make_shared<ControlConnection>(std::move(socket));
            return client;
        }
        if (greeting.error().code != ErrorCode::io) {
            return fail(
                greeting.error().code,
                fmt::format("{} is no coordinator of this program (\"{}\" on {}): {}", address,
                            build_description(), this_host(), greeting.error().text));
        }
        if (Clock::now() + kRetryInterval >= until) {
            return fail(
                ErrorCode::timed_out,
                fmt::format("no coordinator at {} within {:.1f} s: {}; is it running, and is "
                            "the port reachable from this host?",
                            address, std::chrono::duration<double>(deadline).count(),
                            greeting.error().text));
        }
        asio::steady_timer pause(client->loop_, kRetryInterval);
        pause.wait();
    }
}

void ControlClient::start(ControlConnection::Callbacks callbacks) {
    asio::post(loop_, [this, callbacks = std::move(callbacks)]() mutable {
        callbacks.received = [this, receive = std::move(callbacks.received)](Message&& message) {
            heard_ = Clock::now();
            receive(std::move(message));
        };
        connection_->start(std::move(callbacks));
    });
    // Signals belong to the main thread.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] {
        loop_.restart();
        loop_.run();
    });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ControlClient::~ControlClient() { stop(); }

void ControlClient::stop() {
    asio::post(loop_, [this] {
        for (auto& [node, announced] : announced_) announced.timer->cancel();
        if (later_) later_->cancel();
        if (watch_) watch_->timer->cancel();
        if (connection_) connection_->close();  // none where connecting failed
        work_.reset();
        loop_.stop();  // a timer that was begun behind these would be waited for
    });
    if (thread_.joinable()) {
        thread_.join();
    } else {
        loop_.restart();
        loop_.run();
    }
}

void ControlClient::send(Message message) {
    asio::post(loop_, [connection = connection_, message = std::move(message)] {
        connection->send(message);
    });
}

void ControlClient::announce(NodeId node, std::string activity, Nanos interval) {
    asio::post(loop_, [this, node, activity = std::move(activity), interval]() mutable {
        Announced& announced = announced_[node];
        if (!announced.timer) announced.timer = std::make_shared<asio::steady_timer>(loop_);
        announced.activity = std::move(activity);
        announced.interval = interval;
        announced.timer->cancel();
        announce_again(node);
    });
}

void ControlClient::announce_again(NodeId node) {
    const Announced& announced = announced_[node];
    if (announced.activity.empty()) return;
    Message message;
    message.envelope.from = node;
    message.envelope.to = kCoordinator;
    Status status;
    status.activity = announced.activity;
    message.body = std::move(status);
    connection_->send(message);
    announced.timer->expires_after(announced.interval);
    announced.timer->async_wait([this, node](const ErrorOfAsio& cancelled) {
        if (!cancelled) announce_again(node);
    });
}

void ControlClient::watch(Nanos limit, Nanos interval, std::function<void(Nanos)> silent) {
    asio::post(loop_, [this, limit, interval, silent = std::move(silent)]() mutable {
        heard_ = Clock::now();
        watch_ = Watch{limit, interval, std::move(silent), heard_,
                       std::make_shared<asio::steady_timer>(loop_)};
        look_again();
    });
}

void ControlClient::look_again() {
    const Clock::time_point now = Clock::now();
    const Nanos away = now - std::exchange(watch_->looked, now);
    // What came meanwhile has not been read yet.
    if (away > watch_->limit / 4 + watch_->interval) heard_ = std::min(now, heard_ + away);
    if (now - heard_ > watch_->limit) return watch_->silent(now - heard_);
    watch_->timer->expires_after(watch_->interval);
    watch_->timer->async_wait([this](const ErrorOfAsio& cancelled) {
        if (!cancelled) look_again();
    });
}

void ControlClient::leave(Nanos deadline) {
    if (!thread_.joinable()) return;  // nothing was sent
    const auto gone = std::make_shared<std::promise<void>>();
    asio::post(loop_, [this, gone] {
        if (watch_) watch_->timer->cancel();
        connection_->leave([gone] { gone->set_value(); });
    });
    gone->get_future().wait_for(deadline);
}

void ControlClient::after(Nanos delay, std::function<void()> action) {
    asio::post(loop_, [this, delay, action = std::move(action)] {
        later_ = std::make_shared<asio::steady_timer>(loop_, delay);
        later_->async_wait([action](const ErrorOfAsio& cancelled) {
            if (!cancelled) action();
        });
    });
}

}  // namespace detente
