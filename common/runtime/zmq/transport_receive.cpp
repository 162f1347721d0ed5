// Receiving: frames to messages, and the typed no to what is none.
#include <string>
#include <utility>

#include "common/codec/codec.h"
#include "common/runtime/zmq/inspection.h"
#include "common/runtime/zmq/transport.h"

namespace detente {
namespace {

constexpr std::size_t kBatch = 16;              // messages per socket and round
constexpr std::size_t kMostLogged = 1U << 10U;  // (peer, code) pairs
// Of one message, without its routing id: what the codec would take, padding between copied blocks
// included. More is refused before anything keeps it.
constexpr std::size_t kMostBytes =
    kMostHeaderBytes + kMostMessageBytes + 16 * kMostBlocksPerMessage;

// Of a message without a header frame, or beyond the bounds.
Error out_of_bounds(bool has_header, std::size_t bytes) {
    std::string found = "none";
    if (has_header) found = "more";
    if (bytes > kMostBytes) found = std::to_string(bytes) + " bytes";
    return fail(ErrorCode::bad_message,
                "expected a message of 1 to " + std::to_string(1 + kMostPayloadFrames) +
                    " frames and at most " + std::to_string(kMostBytes) + " bytes, found " + found +
                    ": no process of this build sends that; end the one that does");
}

}  // namespace

std::size_t Transport::receive(const Deliver& deliver) {
    std::size_t count = 0;
    bool going = true;
    if (router_.open()) {
        for (std::size_t i = 0; i < kBatch && going; ++i) {
            Arrived arrived;
            if (!receive_message(router_, arrived)) break;
            going = take_routed(arrived, deliver);
            ++count;
        }
    }
    // A delivered message may not connect or disconnect peers: those events come by post().
    for (std::size_t d = 0; d < dealers_.size() && going; ++d) {
        const NodeId from = dealers_[d];
        for (std::size_t i = 0; i < kBatch && going; ++i) {
            Arrived arrived;
            if (!receive_message(peers_.at(from).dealer, arrived)) break;
            going = take_dealt(from, arrived, deliver);
            ++count;
        }
    }
    return count;
}

bool Transport::receive_message(ZmqSocket& socket, Arrived& arrived) {
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    bool more = socket.receive(frame);
    const bool any = more;
    const bool routed = &socket == &router_;
    for (std::size_t number = 0; more; ++number) {
        more = zmq_msg_more(&frame) != 0;
        Payload payload = payload_of_received(frame);
        if (routed && number == 0) {
            arrived.routing_id = std::move(payload);
        } else {
            arrived.bytes += payload.size();
            if (!arrived.header) {
                arrived.header = std::move(payload);
            } else if (!arrived.too_many && arrived.payloads.size() < kMostPayloadFrames &&
                       arrived.bytes <= kMostBytes) {
                arrived.payloads.push_back(std::move(payload));
            } else {  // its other frames are taken from the socket, and let go at once
                arrived.too_many = true;
                arrived.payloads.clear();
            }
        }
        if (more) more = socket.receive(frame);  // all parts are here: a message is atomic
    }
    zmq_msg_close(&frame);
    return any;
}

bool Transport::take_routed(Arrived& arrived, const Deliver& deliver) {
    const auto id = parse_routing_id(arrived.routing_id->bytes);
    if (!id) {
        refuse("a peer that is no node of ours",
               fail(ErrorCode::bad_message, "its routing id is none of ours"));
        return true;
    }
    Inspected inspected;
    if (arrived.too_many || !arrived.header) {
        inspected.refused = out_of_bounds(arrived.header.has_value(), arrived.bytes);
    } else {
        inspected =
            inspect({id->node, id->incarnation, options_.self, options_.generation, options_.build},
                    *arrived.header, std::move(arrived.payloads));
    }
    const auto known = peers_.find(id->node);
    if (!inspected.refused && known != peers_.end() &&
        known->second.incarnation > id->incarnation) {
        inspected.refused =
            fail(ErrorCode::peer_lost,
                 to_string(id->node) + " incarnation " + std::to_string(id->incarnation.value) +
                     " was replaced by incarnation " +
                     std::to_string(known->second.incarnation.value) + ": end it");
    }
    if (inspected.refused) {
        refuse(to_string(id->node), *inspected.refused);
        const auto bytes = arrived.routing_id->bytes;
        answer_refusal({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, id->node,
                       *inspected.refused, inspected.message);
        return true;
    }
    place_peer(*id, *arrived.routing_id);
    counters_.messages_in.add(1);
    counters_.bytes_in.add(arrived.bytes);
    return deliver(std::move(*inspected.message));
}

bool Transport::take_dealt(NodeId from, Arrived& arrived, const Deliver& deliver) {
    Inspected inspected;
    if (arrived.too_many) {
        inspected.refused = out_of_bounds(true, arrived.bytes);
    } else {
        inspected =
            inspect({from, std::nullopt, options_.self, options_.generation, options_.build},
                    *arrived.header, std::move(arrived.payloads));
    }
    if (inspected.refused) {
        // Not answered: a server that speaks wrongly is told by its own log and by our deadline.
        refuse(to_string(from), *inspected.refused);
        return true;
    }
    counters_.messages_in.add(1);
    counters_.bytes_in.add(arrived.bytes);
    return deliver(std::move(*inspected.message));
}

void Transport::place_peer(const RoutingId& id, const Payload& routing_id) {
    const auto [found, added] = peers_.try_emplace(id.node);
    Peer& peer = found->second;
    if (!added && peer.incarnation == id.incarnation && !peer.name.empty()) return;
    drop_waiting(id.node, peer, "a new process took its place");
    peer.incarnation = id.incarnation;
    peer.name.assign(reinterpret_cast<const char*>(routing_id.bytes.data()), routing_id.size());
    peer.checksums = checksums_to(id.host_hash);
}

void Transport::refuse(const std::string& peer_name, const Error& error) {
    counters_.refused[static_cast<std::size_t>(error.code)].add(1);
    if (refusals_logged_.size() >= kMostLogged) return;
    if (!refusals_logged_.emplace(peer_name, error.code).second) return;
    log(LogLevel::warning, "refused a message of " + peer_name + " (" + name_of(error.code) +
                               "): " + error.text + " (later ones are only counted)");
}

void Transport::answer_refusal(const std::string& routing_id, NodeId to, const Error& error,
                               const std::optional<Message>& refused) {
    if (refused && std::holds_alternative<Refusal>(refused->body)) return;
    Message answer{Envelope{}, refusal_of(error, refused)};
    fill_envelope(answer.envelope, to);
    const Outgoing outgoing = outgoing_of(encode(answer, false), Time{});
    if (send_frames(router_, &routing_id, outgoing.frames) == SendOutcome::sent) {
        sent_one(outgoing);
    } else {
        counters_.dropped.add(1);
    }
}

}  // namespace detente
