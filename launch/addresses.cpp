#include "launch/addresses.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "launch/roles.h"

namespace detente {
namespace {

constexpr const char* kAuto = "auto";
constexpr const char* kEverywhere = "0.0.0.0";
constexpr const char* kLoopback = "127.0.0.1";

std::optional<std::uint32_t> number_of(const std::string& address) {
    in_addr parsed{};
    if (::inet_pton(AF_INET, address.c_str(), &parsed) != 1) return std::nullopt;
    return ntohl(parsed.s_addr);
}

std::string dotted(const sockaddr* address) {
    char text[INET_ADDRSTRLEN] = "";
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    ::inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    return text;
}

std::string list_of(const std::vector<Interface>& here) {
    std::string text;
    for (const Interface& one : here) {
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", one.name, one.address);
    }
    return text.empty() ? "no interface that is up" : text;
}

Error not_here(const std::string& text, const std::string& expected,
               const std::vector<Interface>& here) {
    return fail(ErrorCode::bad_job, fmt::format("'{}': expected {}; {} has {}", text, expected,
                                                this_host(), list_of(here)));
}

struct Network {
    std::uint32_t base = 0;
    std::uint32_t mask = 0;
};

std::optional<Network> network_of(const std::string& text) {
    const std::size_t slash = text.find('/');
    if (slash == std::string::npos) return std::nullopt;
    const auto base = number_of(text.substr(0, slash));
    unsigned bits = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + slash + 1, end, bits);
    if (!base || parsed.ec != std::errc() || parsed.ptr != end || bits > 32) return std::nullopt;
    const std::uint32_t mask = bits == 0 ? 0 : ~std::uint32_t{0} << (32 - bits);
    return Network{*base & mask, mask};
}

// IPv4 addresses that a name stands for; none where it stands for nothing.
std::vector<std::string> addresses_of_name(const std::string& name) {
    addrinfo wanted{};
    wanted.ai_family = AF_INET;
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(name.c_str(), nullptr, &wanted, &found) != 0) return {};
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
    std::vector<std::string> addresses;
    for (; found != nullptr; found = found->ai_next) addresses.push_back(dotted(found->ai_addr));
    return addresses;
}

// A datagram socket that is connected sends nothing, but has been given an address to send from.
std::string address_of_default_route() {
    sockaddr_in somewhere{};
    somewhere.sin_family = AF_INET;
    somewhere.sin_port = htons(9);
    ::inet_pton(AF_INET, "192.0.2.1", &somewhere.sin_addr);  // for documentation; never routed here
    const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0) return {};
    sockaddr_in own{};
    socklen_t length = sizeof(own);
    const bool known =
        ::connect(socket, reinterpret_cast<sockaddr*>(&somewhere), sizeof(somewhere)) == 0 &&
        ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &length) == 0;
    ::close(socket);
    return known ? dotted(reinterpret_cast<sockaddr*>(&own)) : "";
}

// What the others are told. A name is good enough, if it stands for something.
Result<std::string> advertised(const std::string& text, const std::vector<Interface>& here) {
    if (number_of(text) || network_of(text)) return own_address(text, here);
    if (auto own = own_address(text, here)) return own;
    if (!addresses_of_name(text).empty()) return text;
    return not_here(text,
                    "an address, an interface's name, a network like 10.1.0.0/16, or a name "
                    "that stands for an address",
                    here);
}

}  // namespace

std::vector<Interface> own_interfaces() {
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return {};
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owned(all, ::freeifaddrs);
    std::vector<Interface> here;
    for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
        const bool up = (one->ifa_flags & IFF_UP) != 0;
        if (!up || one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
        here.push_back({one->ifa_name, dotted(one->ifa_addr)});
    }
    return here;
}

bool is_loopback(const std::string& host) {
    return host == "localhost" || host == "::1" || host.starts_with("127.");
}

Result<std::string> own_address(const std::string& text, const std::vector<Interface>& here) {
    if (number_of(text)) return text;
    const auto network = network_of(text);
    for (const Interface& one : here) {
        if (network ? (number_of(one.address).value_or(0) & network->mask) == network->base
                    : one.name == text) {
            return one.address;
        }
    }
    return not_here(text,
                    network ? "a network that this host is in"
                            : "an address, an interface's name, or a network like 10.1.0.0/16",
                    here);
}

std::string reachable_address(const std::vector<Interface>& here) {
    const auto own = [&here](const std::string& address) {
        return !is_loopback(address) && std::any_of(here.begin(), here.end(), [&](const auto& one) {
            return one.address == address;
        });
    };
    for (const std::string& address : addresses_of_name(this_host())) {
        if (own(address)) return address;
    }
    if (std::string address = address_of_default_route(); own(address)) return address;
    for (const Interface& one : here) {
        if (own(one.address)) return one.address;
    }
    return kLoopback;
}

Result<Listening> listening(const ListeningWish& wish, const std::vector<Interface>& here) {
    Listening result;
    if (wish.bind != kAuto) {
        auto own = own_address(wish.bind, here);
        if (own.has_error()) {
            return fail(own.error().code, "transport.bind_address = " + own.error().text);
        }
        result.bind = *own;
    } else if (!wish.control.empty() && !is_loopback(wish.control)) {
        result.bind = wish.control;
    } else if (!wish.several_hosts) {
        result.bind = kLoopback;
    } else {
        result.bind = wish.control.empty() ? reachable_address(here) : kEverywhere;
    }
    if (wish.advertise != kAuto) {
        auto told = advertised(wish.advertise, here);
        if (told.has_error()) {
            return fail(told.error().code, "transport.advertise_address = " + told.error().text);
        }
        result.advertise = *told;
    } else if (result.bind != kEverywhere) {
        result.advertise = result.bind;
    } else if (!wish.control.empty() && !is_loopback(wish.control)) {
        result.advertise = wish.control;
    } else {
        result.advertise = wish.several_hosts ? reachable_address(here) : kLoopback;
    }
    return result;
}

}  // namespace detente
