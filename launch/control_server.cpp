#include "launch/control_server.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace detente {

namespace asio = boost::asio;
using ErrorOfAsio = boost::system::error_code;

struct ControlServer::Peer {
    Peer(asio::io_context& loop, asio::ip::tcp::socket socket)
        : connection(std::make_shared<ControlConnection>(std::move(socket))), hello_timer(loop) {}
    std::shared_ptr<ControlConnection> connection;
    std::vector<NodeId> nodes;
    asio::steady_timer hello_timer;
};

ControlServer::ControlServer(asio::io_context& loop, Message greeting, Callbacks callbacks)
    : loop_(loop),
      callbacks_(std::move(callbacks)),
      greeting_(std::move(greeting)),
      beat_timer_(loop),
      acceptor_(loop) {}

ControlServer::~ControlServer() { close(); }

Result<void> ControlServer::listen(const std::string& address, std::uint16_t port) {
    ErrorOfAsio error;
    const auto ip = asio::ip::make_address(address, error);
    const auto refuse = [&](const ErrorOfAsio& why) {
        return fail(
            ErrorCode::io,
            fmt::format("the coordinator cannot listen on {}:{}: {}; choose another port, or "
                        "stop who holds it (ss -ltnp shows who)",
                        address, port, why.message()));
    };
    if (error) return refuse(error);
    const asio::ip::tcp::endpoint endpoint(ip, port);
    if (acceptor_.open(endpoint.protocol(), error); error) return refuse(error);
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (acceptor_.bind(endpoint, error); error) return refuse(error);
    if (acceptor_.listen(asio::socket_base::max_listen_connections, error); error) {
        return refuse(error);
    }
    port_ = acceptor_.local_endpoint().port();
    accept();
    return {};
}

void ControlServer::accept() {
    acceptor_.async_accept([this](const ErrorOfAsio& error, asio::ip::tcp::socket socket) {
        if (!acceptor_.is_open()) return;
        if (error) {
            callbacks_.warn("accepting a control connection: " + error.message());
            return accept();
        }
        auto peer = std::make_shared<Peer>(loop_, std::move(socket));
        peers_.push_back(peer);
        peer->hello_timer.expires_after(kHelloDeadline);
        const std::weak_ptr<Peer> weak = peer;
        peer->hello_timer.async_wait([this, weak](const ErrorOfAsio& cancelled) {
            const auto late = weak.lock();
            if (cancelled || !late || !late->nodes.empty()) return;
            late->connection->close();
            on_closed(late, "said no hello in time");
        });
        peer->connection->start({.received =
                                     [this, weak](Message&& message) {
                                         if (const auto from = weak.lock())
                                             on_message(from, std::move(message));
                                     },
                                 .closed =
                                     [this, weak](const std::string& reason) {
                                         if (const auto from = weak.lock()) on_closed(from, reason);
                                     }});
        peer->connection->send(greeting_);
        accept();
    });
}

void ControlServer::on_message(const std::shared_ptr<Peer>& peer, Message&& message) {
    const NodeId from = message.envelope.from;
    const bool known = std::find(peer->nodes.begin(), peer->nodes.end(), from) != peer->nodes.end();
    if (!known && std::holds_alternative<Hello>(message.body)) {
        if (by_node_.contains(from)) {
            callbacks_.warn(fmt::format("{} claims to be {}, which is connected already: closed",
                                        peer->connection->peer(), to_string(from)));
            peer->connection->close();
            return on_closed(peer, "its rank is taken");
        }
        peer->nodes.push_back(from);
        by_node_[from] = peer;
        peer->hello_timer.cancel();
        if (sign_of_life_) peer->connection->send(*sign_of_life_);
    } else if (!known) {
        callbacks_.warn(fmt::format("{} speaks as {} without a hello: closed",
                                    peer->connection->peer(), to_string(from)));
        peer->connection->close();
        return on_closed(peer, "spoke without a hello");
    }
    callbacks_.received(std::move(message));
}

void ControlServer::on_closed(const std::shared_ptr<Peer>& peer, const std::string& reason) {
    // The list below may hold the last reference.
    // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
    const auto keep = peer;
    peers_.erase(std::remove(peers_.begin(), peers_.end(), peer), peers_.end());
    if (keep->nodes.empty()) {
        callbacks_.warn(fmt::format("control connection from {} refused: {}",
                                    keep->connection->peer(), reason));
    }
    for (const NodeId node : keep->nodes) by_node_.erase(node);
    for (const NodeId node : std::vector<NodeId>(keep->nodes)) callbacks_.closed(node, reason);
}

void ControlServer::send(NodeId to, const Message& message) {
    const auto found = by_node_.find(to);
    if (found == by_node_.end()) return;
    const auto connection = found->second->connection;
    connection->send(message);
}

void ControlServer::beat(Message sign_of_life, Nanos interval) {
    sign_of_life_ = std::move(sign_of_life);
    beat_interval_ = interval;
    beat_again();
}

void ControlServer::beat_again() {
    // A connection that fails meanwhile takes itself off the list.
    const auto peers = peers_;
    for (const auto& peer : peers) {
        // What still waits to be written is as good, and one that reads nothing gets no more.
        const bool hears = !peer->nodes.empty() && peer->connection->queued_bytes() == 0;
        if (hears) peer->connection->send(*sign_of_life_);
    }
    beat_timer_.expires_after(beat_interval_);
    beat_timer_.async_wait([this](const ErrorOfAsio& cancelled) {
        if (!cancelled && acceptor_.is_open()) beat_again();
    });
}

bool ControlServer::all_written() const {
    return std::all_of(peers_.begin(), peers_.end(), [](const std::shared_ptr<Peer>& peer) {
        return peer->connection->queued_bytes() == 0;
    });
}

void ControlServer::drop(NodeId node) {
    const auto found = by_node_.find(node);
    if (found == by_node_.end()) return;
    const auto peer = found->second;
    // A sign of life that is under way would else take the word behind it along.
    peer->connection->close_after_last_word();
    peers_.erase(std::remove(peers_.begin(), peers_.end(), peer), peers_.end());
    for (const NodeId other : peer->nodes) by_node_.erase(other);
}

void ControlServer::close() {
    ErrorOfAsio ignored;
    acceptor_.close(ignored);
    beat_timer_.cancel();
    for (const auto& peer : peers_) {
        peer->connection->close();
        peer->hello_timer.cancel();
    }
    peers_.clear();
    by_node_.clear();
}

}  // namespace detente
