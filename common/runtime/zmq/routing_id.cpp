#include "common/runtime/zmq/routing_id.h"

#include <cstring>

#include "common/checksum.h"

namespace detente {
namespace {
constexpr char kMark = 'D';
constexpr std::size_t kBytes = 1 + 1 + 4 + 4 + 8;

template <class T>
void put(std::string& out, T value) {
    for (std::size_t i = 0; i < sizeof value; ++i) {
        out.push_back(static_cast<char>((value >> (8 * i)) & 0xFFU));
    }
}

template <class T>
T take(std::span<const std::byte>& in) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof value; ++i) {
        value = static_cast<T>(value | (static_cast<T>(in[i]) << (8 * i)));
    }
    in = in.subspan(sizeof value);
    return value;
}
}  // namespace

std::string bytes_of(const RoutingId& id) {
    std::string out;
    out.reserve(kBytes);
    out.push_back(kMark);
    out.push_back(static_cast<char>(id.node.role));
    put(out, id.node.index);
    put(out, id.incarnation.value);
    put(out, id.host_hash);
    return out;
}

std::optional<RoutingId> parse_routing_id(std::span<const std::byte> bytes) {
    if (bytes.size() != kBytes || static_cast<char>(bytes[0]) != kMark) return std::nullopt;
    const auto role = std::to_integer<std::uint8_t>(bytes[1]);
    if (role > static_cast<std::uint8_t>(Role::evaluator)) return std::nullopt;
    bytes = bytes.subspan(2);
    RoutingId id;
    id.node.role = static_cast<Role>(role);
    id.node.index = take<std::uint32_t>(bytes);
    id.incarnation.value = take<std::uint32_t>(bytes);
    id.host_hash = take<std::uint64_t>(bytes);
    return id;
}

std::uint64_t hash_of_host(const std::string& host) {
    return checksum_of(std::as_bytes(std::span(host.data(), host.size())));
}

}  // namespace detente
