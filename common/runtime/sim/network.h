// The simulated network: what becomes of a message on its way, and when it arrives. Every node has
// a link of its own, with one queue out and one in; what two nodes send each other may be lost,
// doubled, delayed past later messages or altered, never torn.
//
// Control messages (from and to the coordinator and its services) travel as over TCP: reliably, in
// order, delayed by disturbances but not lost to them.
//
// Thread: the world's. Each message draws from (seed, purpose, sender, number of the message), and
// always the same number of values, so that one fault's setting moves no other's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "common/ids.h"

namespace detente::sim {

struct NetworkOptions {
    Nanos latency{50'000};
    Nanos jitter{0};                   // added, uniform in [0, jitter]: reorders
    double bandwidth_bytes_per_s = 0;  // of each node's link, each way; 0 = without limit
    double drop = 0;                   // probability per message
    double duplicate = 0;              // … that a second copy arrives, each with its own jitter
    double corrupt = 0;                // … that one bit of one payload is flipped
};

// Traffic from one group of nodes to another that is cut (a partition) or slowed (a clog) for a
// while. An empty group is everybody.
struct Disturbance {
    std::vector<NodeId> from;
    std::vector<NodeId> to;
    bool both_ways = true;
    Time begins{};
    Time ends{};
    bool cut = true;
    Nanos delay{0};  // added where it is not cut
};

// Bytes that a message takes on a link besides its payloads.
inline constexpr std::uint64_t kHeaderBytes = 256;

class Network {
  public:
    Network(std::uint64_t seed, const NetworkOptions& options) : seed_(seed), options_(options) {}

    void disturb(Disturbance disturbance) { disturbances_.push_back(std::move(disturbance)); }

    struct Copy {
        Time arrives;
        bool corrupt = false;
    };
    struct Fate {
        std::array<Copy, 2> copies;
        std::size_t count = 0;  // of copies that arrive
        bool dropped = false;
        bool doubled = false;
        std::uint64_t key = 0;  // for further draws about this message
    };
    // `number`: of the sender's messages. `bytes`: of its payloads.
    Fate send(NodeId from, NodeId to, std::uint64_t number, std::uint64_t bytes, Time now);
    // When a message that arrives now has come through the receiver's link.
    Time receive(NodeId to, std::uint64_t bytes, Time now);

    const NetworkOptions& options() const { return options_; }

  private:
    Fate send_reliably(NodeId from, NodeId to, Time now, std::uint64_t key);
    Nanos transfer_time(std::uint64_t bytes) const;

    std::uint64_t seed_;
    NetworkOptions options_;
    std::vector<Disturbance> disturbances_;
    std::map<NodeId, Time> out_free_;  // with a bandwidth only
    std::map<NodeId, Time> in_free_;
    std::map<std::pair<NodeId, NodeId>, Time> streams_;  // last arrival; with disturbances only
};

}  // namespace detente::sim
