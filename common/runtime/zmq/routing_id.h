// How a dealer introduces itself to a ROUTER: who it is, which of its processes, and on which host,
// so that the shard knows from the first frame on whether a checksum is due.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "common/ids.h"

namespace detente {

struct RoutingId {
    NodeId node;
    Incarnation incarnation{1};
    std::uint64_t host_hash = 0;
    bool operator==(const RoutingId&) const = default;
};

// Bytes for ZMQ_ROUTING_ID: never starting with 0 (libzmq keeps those).
std::string bytes_of(const RoutingId& id);
// None if these bytes are no routing id of ours.
std::optional<RoutingId> parse_routing_id(std::span<const std::byte> bytes);
std::uint64_t hash_of_host(const std::string& host);

}  // namespace detente
