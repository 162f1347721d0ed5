// Connecting, sending, waiting; receiving is in transport_receive.cpp.
#include "common/runtime/zmq/transport.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "common/invariant.h"

namespace detente {
namespace {

// In the abstract namespace: no file is left behind, however the process ends.
std::string fresh_ipc_address(NodeId self) {
    std::random_device entropy;
    return "ipc://@detente-" + std::to_string(::getpid()) + "-" + to_string(self) + "-" +
           std::to_string(entropy());
}

}  // namespace

Transport::Transport(const ZmqLoopOptions& options, CounterCells& counters, Wakeup& wakeup)
    : options_(options),
      counters_(counters),
      wakeup_(wakeup),
      sent_(wakeup, options.self.role == Role::shard),
      context_(options.io_threads),
      host_hash_(hash_of_host(options.host)) {
    endpoint_.node = options_.self;
    endpoint_.incarnation = options_.incarnation;
    endpoint_.host = options_.host;
}

Result<std::unique_ptr<Transport>> Transport::open(const ZmqLoopOptions& options,
                                                   CounterCells& counters, Wakeup& wakeup) {
    std::unique_ptr<Transport> transport(new Transport(options, counters, wakeup));
    if (options.self.role == Role::shard) {
        if (auto bound = transport->bind(); !bound) return bound.error();
    }
    transport->rebuild_poll();
    return transport;
}

Result<void> Transport::bind() {
    router_ = ZmqSocket(context_, SocketKind::router, {});
    const std::string port = options_.port == 0 ? "*" : std::to_string(options_.port);
    auto tcp = router_.bind("tcp://" + options_.bind_address + ":" + port);
    if (!tcp) return tcp.error();
    endpoint_.tcp = *tcp;
    if (!options_.advertise_address.empty()) {
        endpoint_.tcp =
            "tcp://" + options_.advertise_address + endpoint_.tcp.substr(endpoint_.tcp.rfind(':'));
    }
    if (options_.transport == TransportKind::tcp) return {};
    auto ipc = router_.bind(fresh_ipc_address(options_.self));
    if (!ipc) return ipc.error();
    endpoint_.ipc = *ipc;
    return {};
}

bool Transport::connects_to(NodeId peer) const {
    if (peer.role != Role::shard || peer == options_.self) return false;
    return options_.self.role != Role::shard || peer == node_of(kLeadShard);
}

bool Transport::checksums_to(std::uint64_t host_hash) const {
    if (options_.checksum == ChecksumMode::automatic) return host_hash != host_hash_;
    return options_.checksum == ChecksumMode::on;
}

std::string Transport::address_of(const Endpoint& peer) const {
    const bool same_host = peer.host == options_.host;
    const bool use_ipc = same_host && options_.transport != TransportKind::tcp && !peer.ipc.empty();
    return use_ipc ? peer.ipc : peer.tcp;
}

void Transport::learn(const Endpoint& endpoint) {
    if (!connects_to(endpoint.node)) return;
    Peer& peer = peers_[endpoint.node];
    const std::string address = address_of(endpoint);
    const bool same = peer.incarnation == endpoint.incarnation && peer.name == address;
    if (peer.dealer.open() && same) return;
    drop_waiting(endpoint.node, peer, "a new process took its place");
    peer.incarnation = endpoint.incarnation;
    peer.name = address;
    peer.checksums = checksums_to(hash_of_host(endpoint.host));
    peer.dealer = ZmqSocket(context_, SocketKind::dealer,
                            bytes_of({options_.self, options_.incarnation, host_hash_}));
    if (auto connected = peer.dealer.connect(address); !connected) {
        log(LogLevel::error, to_string(endpoint.node) + ": " + connected.error().text);
    }
    rebuild_poll();
}

void Transport::forget(NodeId node, Incarnation incarnation) {
    const auto found = peers_.find(node);
    if (found == peers_.end() || found->second.incarnation > incarnation) return;
    drop_waiting(node, found->second, "it is gone");
    peers_.erase(found);
    rebuild_poll();
}

void Transport::fill_envelope(Envelope& envelope, NodeId to) const {
    envelope.from = options_.self;
    envelope.incarnation = options_.incarnation;
    envelope.to = to;
    envelope.generation = options_.generation;
    envelope.build = options_.build;
}

void Transport::send(NodeId to, Message message, Time now) {
    fill_envelope(message.envelope, to);
    const auto found = peers_.find(to);
    if (found == peers_.end()) {
        drop(to, nullptr, 1, "it is not connected");
        return;
    }
    Peer& peer = found->second;
    Outgoing outgoing = outgoing_of(encode(message, peer.checksums), now);
    // What waits goes first, or a peer would see a late message overtake a later one for no reason.
    if (peer.waiting == nullptr && try_send(peer, outgoing.frames) == SendOutcome::sent) {
        sent_one(outgoing);
        return;
    }
    if (peer.waiting == nullptr) {
        peer.waiting = std::make_unique<Outbox>();
        ++waiting_peers_;
    }
    counters_.queued.add(1);
    if (!peer.waiting->put(std::move(outgoing))) drop(to, &peer, 1, "its outbox is full");
}

void Transport::sent_one(const Outgoing& message) {
    counters_.messages_out.add(1);
    counters_.bytes_out.add(message.bytes);
}

SendOutcome Transport::try_send(Peer& peer, const Frames& frames) {
    if (peer.dealer.open()) return send_frames(peer.dealer, nullptr, frames);
    return send_frames(router_, &peer.name, frames);
}

// Only the first frame can be turned away: libzmq takes or drops a message as a whole.
SendOutcome Transport::send_frames(ZmqSocket& socket, const std::string* routing_id,
                                   const Frames& frames) {
    zmq_msg_t frame;
    if (routing_id != nullptr) {
        zmq_msg_init_size(&frame, routing_id->size());
        std::memcpy(zmq_msg_data(&frame), routing_id->data(), routing_id->size());
        const SendOutcome outcome = socket.send(frame, true);
        zmq_msg_close(&frame);
        if (outcome != SendOutcome::sent) return outcome;
    }
    sent_.fill(frame, frames.header);
    SendOutcome outcome = socket.send(frame, !frames.payloads.empty());
    zmq_msg_close(&frame);
    for (std::size_t i = 0; i < frames.payloads.size() && outcome == SendOutcome::sent; ++i) {
        sent_.fill(frame, frames.payloads[i]);
        outcome = socket.send(frame, i + 1 < frames.payloads.size());
        zmq_msg_close(&frame);
    }
    return outcome;
}

void Transport::drop(NodeId to, Peer* peer, std::size_t count, const std::string& why) {
    counters_.dropped.add(count);
    const bool first = peer != nullptr
                           ? !std::exchange(peer->drop_logged, true)
                           : refusals_logged_.emplace(to_string(to), ErrorCode::peer_lost).second;
    if (first) {
        log(LogLevel::warning, "dropped " + std::to_string(count) + " message(s) to " +
                                   to_string(to) + ": " + why + " (later ones are only counted)");
    }
}

void Transport::drop_waiting(NodeId to, Peer& peer, const std::string& why) {
    if (peer.waiting == nullptr) return;
    if (!peer.waiting->empty()) drop(to, &peer, peer.waiting->size(), why);
    peer.waiting.reset();
    --waiting_peers_;
}

void Transport::retry_peer(NodeId to, Peer& peer, Time now) {
    Outbox& waiting = *peer.waiting;
    while (!waiting.empty()) {
        if (try_send(peer, waiting.oldest().frames) == SendOutcome::sent) {
            sent_one(waiting.oldest());
        } else if (now - waiting.oldest().since > Outbox::kMostAge) {
            drop(to, &peer, 1, "it took nothing for 2 s");
        } else {
            return;
        }
        waiting.pop();
    }
    peer.waiting.reset();
    peer.drop_logged = false;
    --waiting_peers_;
}

void Transport::retry_waiting(Time now) {
    if (waiting_peers_ == 0) return;
    for (auto& [node, peer] : peers_) {
        if (peer.waiting != nullptr) retry_peer(node, peer, now);
    }
}

void Transport::rebuild_poll() {
    poll_.assign(1, zmq_pollitem_t{nullptr, wakeup_.descriptor(), ZMQ_POLLIN, 0});
    if (router_.open()) poll_.push_back({router_.get(), 0, ZMQ_POLLIN, 0});
    dealers_.clear();
    for (auto& [node, peer] : peers_) {
        if (!peer.dealer.open()) continue;
        dealers_.push_back(node);
        poll_.push_back({peer.dealer.get(), 0, ZMQ_POLLIN, 0});
    }
}

void Transport::wait(std::optional<Nanos> most, const std::function<bool()>& nothing_queued) {
    // A ROUTER cannot tell when one peer becomes writable again; it is asked at this interval.
    constexpr Nanos kRetryInterval = std::chrono::milliseconds(5);
    if (waiting_peers_ > 0) {
        most = std::min(most.value_or(kRetryInterval), kRetryInterval);
        const std::size_t first = poll_.size() - dealers_.size();
        for (std::size_t i = 0; i < dealers_.size(); ++i) {
            const bool waits = peers_.at(dealers_[i]).waiting != nullptr;
            poll_[first + i].events = ZMQ_POLLIN | (waits ? ZMQ_POLLOUT : 0);
        }
    }
    // A shard is woken by each buffer that comes back, because pushes may wait for one. Nobody
    // waits for a worker's: a wake-up per part would cost more than keeping them a little longer.
    constexpr Nanos kReturnInterval = std::chrono::milliseconds(20);
    if (!sent_.wakes() && sent_.lent() > 0) {
        most = std::min(most.value_or(kReturnInterval), kReturnInterval);
    }
    long timeout_ms = -1;  // for ever
    if (most) {
        const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(std::max(*most, Nanos{}));
        timeout_ms = static_cast<long>(rounded.count());
    }
    wakeup_.prepare();
    if (!nothing_queued()) {
        wakeup_.done(false);
        return;
    }
    zmq_poll(poll_.data(), static_cast<int>(poll_.size()), timeout_ms);
    counters_.wake_ups.add(1);
    wakeup_.done((poll_[0].revents & ZMQ_POLLIN) != 0);
    for (zmq_pollitem_t& item : poll_) item.events = ZMQ_POLLIN;
}

void Transport::log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
}

void Transport::close(Nanos linger) {
    if (std::exchange(closed_, true)) return;
    for (auto& [node, peer] : peers_) {
        drop_waiting(node, peer, "this process ends");
        peer.dealer.close(linger);
    }
    router_.close(linger);
    context_.terminate();
    sent_.drain();
}

}  // namespace detente
