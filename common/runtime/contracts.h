// The contract of a node, and all it may know of the world.
//
// A node (shard, worker, coordinator) is a state machine: it is handed an event and the time, and
// emits effects. It never blocks, never re-enters, and reaches nothing else: no clock, socket,
// environment, file or random device. Runtimes implement Effects: common/runtime/zmq (real) and
// common/runtime/sim (virtual time, in memory). The suite tests/contracts runs over both.
//
// Thread: a node belongs to one loop; on() is only called there. Effects emitted during on() are
// released in order after it returns; every result comes back as a later event.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "common/collective/group.h"
#include "common/ids.h"
#include "common/ledger_entry.h"
#include "common/messages.h"
#include "common/result.h"
#include "common/work.h"

namespace detente {

struct TimerId {
    std::uint64_t value = 0;
    auto operator<=>(const TimerId&) const = default;
};
struct Ticket {
    std::uint64_t value = 0;
    auto operator<=>(const Ticket&) const = default;
};
// What a timer is for; the node chooses the meaning.
struct Tag {
    std::uint32_t kind = 0;
    std::uint64_t subject = 0;
};

// ---- events ----

struct Started {};  // first event of every node
struct Received {
    Message message;
};
struct TimerFired {
    TimerId id;
    Tag tag;
};
// Parts of a computation, then exactly one ComputeEnded per ticket.
struct ComputePart {
    Ticket ticket;
    std::uint32_t index = 0;
    Payload payload;
};
struct ComputeEnded {
    Ticket ticket;
    WorkResult result;  // or an Error: failed, or cancelled
};
struct Stored {
    Ticket ticket;
    Result<void> result;
};
// The group that was asked for last is there, or not: timed_out names who is missing.
struct GroupFormed {
    GroupEpoch epoch;
    Result<void> result;
};
// A key this node began is averaged, weightless or broken; exactly once per key.
struct Reduced {
    CollectiveEnd end;
};
// The group broke; once per group, also if nothing was in flight.
struct GroupBroken {
    GroupEpoch epoch;
    Broken broken;
};
struct PeerUp {
    NodeId node;
    Incarnation incarnation;
};
struct PeerDown {
    NodeId node;
    Incarnation incarnation;
    std::string reason;
};
// Payloads of this node came back from transport or disk; a use count may have fallen.
struct BuffersReturned {};

using Event = std::variant<Started, Received, TimerFired, ComputePart, ComputeEnded, Stored,
                           GroupFormed, Reduced, GroupBroken, PeerUp, PeerDown, BuffersReturned>;

// ---- effects ----

struct Outcome {
    bool failed = false;
    Error error;
};

// Writes `pieces` one after the other to `path` + ".partial", flushes to disk, renames to `path`.
struct StoreOp {
    std::string path;
    std::vector<Payload> pieces;
};

enum class LogLevel { debug, information, warning, error };

class Effects {
  public:
    virtual ~Effects() = default;
    // Fire and forget: may be lost, doubled or reordered, never torn. The runtime fills in the
    // envelope's sender, incarnation, generation and build.
    virtual void send(NodeId to, Message message) = 0;
    virtual TimerId after(Nanos delay, Tag tag) = 0;
    virtual void cancel(TimerId timer) = 0;  // a fired or unknown timer is ignored
    virtual Ticket compute(Work work) = 0;
    // Takes effect between two tasks' backwards; the slot stays busy until ComputeEnded.
    virtual void cancel(Ticket ticket) = 0;
    virtual Ticket store(StoreOp operation) = 0;
    // Leaves the group so far, whose keys in flight end broken, and joins this one.
    virtual void form(Group group, Nanos deadline) = 0;
    // Joins a key of the group that was formed last (worker/collectives/collective.h). Ends broken,
    // peer_lost where none is formed, wrong_epoch where the key is of another.
    virtual void reduce(CollectiveKey key, GradientShare share, Nanos deadline) = 0;
    virtual void record(LedgerEntry entry) = 0;
    virtual void log(LogLevel level, std::string text) = 0;
    // The node is done; no event follows. What was sent before is still delivered if it can be.
    virtual void finish(Outcome outcome) = 0;
};

class Node {
  public:
    virtual ~Node() = default;
    virtual void on(Event&& event, Time now, Effects& effects) = 0;
};

// Executes Work: on a compute thread of the real runtime, inline in the simulated one.
class Computer {
  public:
    virtual ~Computer() = default;
    // Emits parts through `part`, returns the end. `cancelled` may be set from another thread.
    virtual WorkResult run(const Work& work, const std::atomic<bool>& cancelled,
                           const std::function<void(std::uint32_t, Payload)>& part) = 0;
};

}  // namespace detente
