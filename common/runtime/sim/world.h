// The simulated runtime: any number of nodes in one process, one thread, on virtual time. Events
// are ordered by (time, sequence); all randomness is drawn from keys of (seed, purpose, message),
// so the same seed gives the same run, event for event. Nodes are the very same objects that real
// processes run.
//
// Network: messages between shards and workers may be lost, doubled, delayed past later ones or
// altered, as the options say, never torn. Messages from and to the coordinator travel reliably and
// in order, as over its TCP connection. A payload is copied at delivery: what was delivered is the
// receiver's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente::sim {

struct NetworkOptions {
    Nanos latency{50'000};
    Nanos jitter{0};       // added, uniform in [0, jitter]: reorders
    double drop = 0;       // probability per message
    double duplicate = 0;  // … that a second copy arrives, each with its own jitter
    double corrupt = 0;    // … that one bit of one payload is flipped
};

// What the wire makes of a message on its way; nothing = the receiver's end refused it, which
// counts as a loss. `corrupt`: the network alters this one. `key`: for random draws. The result
// shares no bytes with `message`.
using Wire =
    std::function<std::optional<Message>(const Message& message, bool corrupt, std::uint64_t key)>;

struct WorldOptions {
    std::uint64_t seed = 1;
    NetworkOptions network;
    bool checksums = true;  // blocks carry XXH3, as between hosts
    Generation generation{1};
    // Virtual duration of a computation; `count` is how many the node has started before.
    std::function<Nanos(NodeId, const Work&, std::uint64_t count)> compute_time;
    // Bytes and back, for tests (tests/sim/codec_wire.h): this runtime does not depend on the
    // codec. None: messages arrive as they are, copied.
    Wire wire;
    Nanos cancel_time{0};  // from cancel() to the end event
    Nanos store_time{1'000'000};
};

class World {
  public:
    explicit World(WorldOptions options);
    ~World();

    // Starts a node now. The computer is shared with nobody else while the world runs.
    void add(NodeId id, Incarnation incarnation, std::unique_ptr<Node> node,
             Computer* computer = nullptr);
    // The node vanishes with everything it had not sent; nobody is told.
    void crash(NodeId id);
    // Tells every other node that this incarnation is gone, as the coordinator does.
    void announce_down(NodeId id, Incarnation incarnation, const std::string& reason);
    void announce_up(NodeId id, Incarnation incarnation);
    // Hands an event to a node at the current time.
    void post(NodeId id, Event event);
    // Runs `action` at a virtual time.
    void at(Time when, std::function<void()> action);

    // One event; false if none is left.
    bool step();
    // Until `done`, nothing is left, or `limit` of virtual time; whether `done` held.
    bool run_until(const std::function<bool()>& done, Time limit);

    Time now() const { return now_; }
    std::uint64_t events() const { return events_; }
    bool alive(NodeId id) const;
    Node& node(NodeId id);
    std::optional<Outcome> outcome(NodeId id) const;
    const std::vector<LedgerEntry>& ledger(NodeId id) { return ledgers_[id]; }
    const std::map<std::string, std::vector<std::byte>>& files() const { return files_; }
    const std::vector<std::string>& log() const { return log_; }
    // Called after every event a node was handed.
    void observe(std::function<void(NodeId, Time)> observer) { observer_ = std::move(observer); }
    // Store operations to paths with this prefix fail with this error (a full disk).
    void fail_stores(std::string prefix, Error error);

    struct Traffic {
        std::uint64_t sent = 0;
        std::uint64_t dropped = 0;
        std::uint64_t duplicated = 0;
        std::uint64_t corrupted = 0;
        std::uint64_t refused = 0;  // by the wire
        std::uint64_t payload_bytes = 0;
    };
    const Traffic& traffic() const { return traffic_; }

  private:
    class NodeEffects;
    struct Running {
        Ticket ticket;
        Work work;
        bool cancelled = false;
    };
    struct Place {
        std::unique_ptr<Node> node;
        Incarnation incarnation;
        Computer* computer = nullptr;
        std::deque<Running> compute;  // front is running
        std::uint64_t compute_token = 0;
        std::uint64_t computed = 0;
        std::set<std::uint64_t> timers;
        bool buffers_due = false;
    };
    struct Scheduled {
        Time when;
        std::uint64_t sequence;
        std::function<void()> action;
    };
    struct Later {
        bool operator()(const Scheduled& a, const Scheduled& b) const {
            return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
        }
    };

    void deliver(NodeId id, Incarnation incarnation, Event event);
    void transmit(NodeId from, Incarnation incarnation, NodeId to, Message message);
    void arrive(NodeId from, Incarnation from_incarnation, NodeId to, const Message& message,
                bool corrupt, std::uint64_t key);
    void buffers_back(NodeId id, Incarnation incarnation);
    void start_compute(NodeId id);
    void end_compute(NodeId id, Incarnation incarnation, std::uint64_t token);
    void cancel_compute(NodeId id, Ticket ticket);
    void store(NodeId id, Incarnation incarnation, Ticket ticket, StoreOp operation);
    Place* place(NodeId id, Incarnation incarnation);

    WorldOptions options_;
    Time now_{};
    std::uint64_t sequence_ = 0;
    std::uint64_t events_ = 0;
    std::uint64_t messages_ = 0;
    std::uint64_t numbers_ = 0;  // timers and tickets
    std::priority_queue<Scheduled, std::vector<Scheduled>, Later> queue_;
    std::map<NodeId, Place> places_;
    std::map<NodeId, Outcome> outcomes_;
    std::map<NodeId, std::vector<LedgerEntry>> ledgers_;
    std::map<std::string, std::vector<std::byte>> files_;
    std::vector<std::pair<std::string, Error>> store_failures_;
    std::vector<std::string> log_;
    std::function<void(NodeId, Time)> observer_;
    Traffic traffic_;
};

}  // namespace detente::sim
