// Messages between nodes over ZeroMQ. A shard has one ROUTER (tcp and, on its own host, ipc), plus
// one DEALER to the lead shard if it is not the lead itself; anybody else has one DEALER per shard.
//
// A peer with a DEALER of ours is known by its endpoint; a peer on our ROUTER by its first valid
// message. The newest incarnation of a node holds its place. Nothing is dropped silently: what
// cannot be sent waits in the peer's outbox, and what leaves it unsent is counted and logged.
//
// Thread: the loop's, all of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/messages.h"
#include "common/runtime/zmq/counters.h"
#include "common/runtime/zmq/frames.h"
#include "common/runtime/zmq/options.h"
#include "common/runtime/zmq/outbox.h"
#include "common/runtime/zmq/routing_id.h"
#include "common/runtime/zmq/socket.h"

namespace detente {

class Transport {
  public:
    // Takes a good message; false stops receiving.
    using Deliver = std::function<bool(Message&&)>;

    // Binds if `options.self` is a shard. io: the address is taken.
    static Result<std::unique_ptr<Transport>> open(const ZmqLoopOptions& options,
                                                   CounterCells& counters, Wakeup& wakeup);
    ~Transport() { close(Nanos{0}); }

    Endpoint endpoint() const { return endpoint_; }

    // Connects to the peer if it is ours to do; again with the same endpoint is nothing.
    void learn(const Endpoint& peer);
    // Disconnects; what waits for this incarnation (or an earlier one) is dropped.
    void forget(NodeId peer, Incarnation incarnation);

    // Fills in sender, generation and build. Requires: not to the coordinator.
    void send(NodeId to, Message message, Time now);
    void fill_envelope(Envelope& envelope, NodeId to) const;

    // Receives a bounded batch from every socket; how many messages that were.
    std::size_t receive(const Deliver& deliver);

    // Tries once more what waits; drops what has waited too long.
    void retry_waiting(Time now);
    bool has_waiting() const { return waiting_peers_ > 0; }

    // Sleeps until something can be received, an outbox may move, the wake-up is notified or the
    // time is over (none: for ever). `nothing_queued` is asked last before sleeping.
    void wait(std::optional<Nanos> most, const std::function<bool()>& nothing_queued);

    SentFrames& sent() { return sent_; }
    // Closes every socket and ends the context: all lent frames are back after this.
    void close(Nanos linger);

  private:
    struct Peer {
        Incarnation incarnation{1};
        bool checksums = true;
        bool drop_logged = false;
        ZmqSocket dealer;  // ours to it; not open for a peer on our ROUTER
        std::string name;  // the dealer's address, or the peer's routing id
        std::unique_ptr<Outbox> waiting;
    };
    struct Arrived {  // one multipart message
        std::optional<Payload> routing_id;
        std::optional<Payload> header;
        std::vector<Payload> payloads;
        std::size_t bytes = 0;
        bool too_many = false;
    };

    Transport(const ZmqLoopOptions& options, CounterCells& counters, Wakeup& wakeup);
    Result<void> bind();
    bool connects_to(NodeId peer) const;
    bool checksums_to(std::uint64_t host_hash) const;
    std::string address_of(const Endpoint& peer) const;

    SendOutcome send_frames(ZmqSocket& socket, const std::string* routing_id, const Frames& frames);
    SendOutcome try_send(Peer& peer, const Frames& frames);
    void sent_one(const Outgoing& message);
    void drop(NodeId to, Peer* peer, std::size_t count, const std::string& why);
    void drop_waiting(NodeId to, Peer& peer, const std::string& why);
    void retry_peer(NodeId to, Peer& peer, Time now);

    bool receive_message(ZmqSocket& socket, Arrived& arrived);
    bool take_routed(Arrived& arrived, const Deliver& deliver);
    bool take_dealt(NodeId from, Arrived& arrived, const Deliver& deliver);
    void refuse(const std::string& peer_name, const Error& error);
    void answer_refusal(const std::string& routing_id, NodeId to, const Error& error,
                        const std::optional<Message>& refused);
    void place_peer(const RoutingId& id, const Payload& routing_id);
    void log(LogLevel level, const std::string& text) const;
    void rebuild_poll();

    const ZmqLoopOptions options_;
    CounterCells& counters_;
    Wakeup& wakeup_;
    SentFrames sent_;  // before the context: lent frames come back while it ends
    ZmqContext context_;
    std::uint64_t host_hash_;
    ZmqSocket router_;
    Endpoint endpoint_;
    std::unordered_map<NodeId, Peer> peers_;
    std::size_t waiting_peers_ = 0;
    std::set<std::pair<std::string, ErrorCode>> refusals_logged_;
    // [0] the wake-up, then the router if any, then `dealers_` in order.
    std::vector<zmq_pollitem_t> poll_;
    std::vector<NodeId> dealers_;
    bool closed_ = false;
};

}  // namespace detente
