// The coordinator's end of the control links: accepts processes, learns from each Hello which nodes
// speak through a connection (a server process speaks for all its shards), and carries messages.
//
// Thread: the io_context's one thread. A connection that does not say hello within kHelloDeadline,
// or says anything else first, is closed; a node that is connected cannot be taken over.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/messages.h"
#include "common/result.h"
#include "launch/control_connection.h"

namespace detente {

inline constexpr std::chrono::seconds kHelloDeadline{10};

class ControlServer {
  public:
    struct Callbacks {
        std::function<void(Message&&)> received;
        // The connection of `node` ended by itself.
        std::function<void(NodeId node, const std::string& reason)> closed;
        std::function<void(const std::string& text)> warn;
    };
    // `greeting` is sent to whoever connects: a Welcome, whose envelope tells build and
    // generation, `job` the resolved job, `model` the run directory's path, and `peers` the
    // workers' places that are free.
    ControlServer(boost::asio::io_context& loop, Message greeting, Callbacks callbacks);
    ~ControlServer();
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;

    // From now on whoever connects is sent this.
    void greet(Message greeting) { greeting_ = std::move(greeting); }
    // From now on whoever has said hello is sent this, at once and every `interval`: what is silent
    // for long is frozen or gone, which a connection alone does not tell.
    void beat(Message sign_of_life, Nanos interval);
    // Port 0 = any free one. io, naming address and remedy, if it cannot be bound.
    Result<void> listen(const std::string& address, std::uint16_t port);
    std::uint16_t port() const { return port_; }
    // Dropped if the node is not connected.
    void send(NodeId to, const Message& message);
    bool connected(NodeId node) const { return by_node_.contains(node); }
    // Everything sent has been handed to the kernel.
    bool all_written() const;
    // Not heard any more; what was sent to it before is still written, if it can be soon.
    void drop(NodeId node);
    void close();

  private:
    struct Peer;
    void accept();
    void beat_again();
    void on_message(const std::shared_ptr<Peer>& peer, Message&& message);
    void on_closed(const std::shared_ptr<Peer>& peer, const std::string& reason);

    boost::asio::io_context& loop_;
    Callbacks callbacks_;
    Message greeting_;
    std::optional<Message> sign_of_life_;
    Nanos beat_interval_{};
    boost::asio::steady_timer beat_timer_;
    boost::asio::ip::tcp::acceptor acceptor_;
    std::uint16_t port_ = 0;
    std::vector<std::shared_ptr<Peer>> peers_;
    std::map<NodeId, std::shared_ptr<Peer>> by_node_;
};

}  // namespace detente
