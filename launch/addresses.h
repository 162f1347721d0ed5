// Where a process listens and what it tells the others to connect to, on this host: from
// transport.bind_address and transport.advertise_address (or --bind, --advertise, DETENTE_*), which
// are the same text on every host and may be an interface's name or a network, so that each host
// takes its own.
//
// Thread: pure, but for own_interfaces() and reachable_address().
#pragma once

#include <string>
#include <vector>

#include "common/result.h"

namespace detente {

struct Interface {
    std::string name;     // "eth0"
    std::string address;  // IPv4, dotted
};
std::vector<Interface> own_interfaces();  // those that are up; an entry per address

bool is_loopback(const std::string& host);  // 127.…, ::1, localhost

// The address of this host that the text means: an address as it is, an interface's, or the one in
// a network ("10.1.0.0/16"). bad_job, saying what this host has: neither, or none of it.
Result<std::string> own_address(const std::string& text, const std::vector<Interface>& here);

// This host's address that others most likely reach: its name's, if that is one of its own; else
// that of its default route; else the first that is no loopback; else loopback.
std::string reachable_address(const std::vector<Interface>& here);

struct ListeningWish {
    std::string bind = "auto";
    std::string advertise = "auto";
    // Ranks may be on other hosts than this one.
    bool several_hosts = false;
    // This end's address of the link to the coordinator; empty = this is the coordinator.
    std::string control;
};
struct Listening {
    std::string bind;
    std::string advertise;
};
// The sentence: a server under "auto" listens where it reaches the coordinator from, so that
// whoever reaches the one reaches the other; where that is loopback and there are other hosts, on
// all interfaces, and tells its reachable address.
Result<Listening> listening(const ListeningWish& wish, const std::vector<Interface>& here);

}  // namespace detente
