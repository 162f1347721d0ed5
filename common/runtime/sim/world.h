// The simulated runtime: any number of nodes in one process, on virtual time. Events are ordered by
// (time, sequence); all randomness is a function of (seed, purpose, node, count), so the same seed
// gives the same run, event for event. Nodes are the very same objects that real processes run.
//
// Thread: one, the world's; computations may run beside it on a pool (compute_pool.h), from their
// virtual start to their virtual finish, which changes no event and no bit.
//
// The network is network.h's. A payload is copied at delivery: what was delivered is the
// receiver's.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/runtime/contracts.h"
#include "common/runtime/sim/compute_pool.h"
#include "common/runtime/sim/event_queue.h"
#include "common/runtime/sim/groups.h"
#include "common/runtime/sim/network.h"

namespace detente::sim {

// What the wire makes of a message on its way; nothing = the receiver's end refused it, which
// counts as a loss. `corrupt`: the network alters this one. `key`: for random draws. The result
// shares no bytes with `message`.
using Wire =
    std::function<std::optional<Message>(const Message& message, bool corrupt, std::uint64_t key)>;

struct WorldOptions {
    std::uint64_t seed = 1;
    NetworkOptions network;
    GroupOptions groups;
    bool checksums = true;  // blocks carry XXH3, as between hosts
    Generation generation{1};
    std::uint64_t build = 0;  // in every envelope
    // Virtual duration of a computation; `count` is how many the node has started before, in all
    // its incarnations.
    std::function<Nanos(NodeId, const Work&, std::uint64_t count)> compute_time;
    // How long a node is busy with a message before it has done with it; none: no time. Others
    // wait their turn.
    std::function<Nanos(NodeId, const Message&)> service_time;
    // Where computations that take time run; none: on the world's thread, at their virtual finish.
    ComputePool* pool = nullptr;
    // Sees a computation as it is about to be run, at its virtual finish; may alter it. Requires
    // that there is no pool, which has run it by then.
    std::function<void(NodeId, Work&)> about_to_run;
    // Bytes and back, for tests (tests/sim/codec_wire.h): this runtime does not depend on the
    // codec. None: messages arrive as they are, copied.
    Wire wire;
    // Sees every message as it leaves, its envelope filled in and its checksums not made yet; may
    // alter it.
    std::function<void(NodeId to, Message&)> alter;
    Nanos cancel_time{0};  // from cancel() to the end event
    Nanos end_delay{0};    // from a computation's parts to its end, as a busy machine has it
    Nanos store_time{1'000'000};
    // Where effects go that leave the world; none: kept, for files(), ledger() and log().
    std::function<Result<void>(StoreOp&)> store;
    std::function<void(NodeId, Incarnation, const LedgerEntry&)> record;
    std::function<void(NodeId, Time, LogLevel, const std::string&)> log;
    // A node is about to be handed an event.
    std::function<void(NodeId, Time, const Event&)> trace;
    // A node has finished or crashed, and is about to go.
    std::function<void(NodeId, Node&)> ending;
};

class World {
  public:
    explicit World(WorldOptions options);
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    // Starts a node now. The computer is shared with nobody else while the world runs.
    void add(NodeId id, Incarnation incarnation, std::unique_ptr<Node> node,
             Computer* computer = nullptr);
    // Hands an event to a node at the current time.
    void post(NodeId id, Event event);
    // A copy of a message that left its sender before reaches its receiver at `when`, as from a
    // process that should be gone.
    void arrive_late(Message message, Time when);
    // Nodes added from now on are of this generation. What older ones had sent still arrives, and
    // is refused as by any transport. Requires: no node lives.
    void begin_generation(Generation generation);
    // Runs `action` at a virtual time.
    void at(Time when, std::function<void()> action);

    // ---- faults ----
    // The node vanishes with everything it had not sent; nobody is told.
    void crash(NodeId id);
    // It is handed nothing for so long, then all that came meanwhile, in order.
    void pause(NodeId id, Nanos duration);
    // The next gradient it has combined holds a NaN.
    void spoil_gradient(NodeId id);
    void disturb(Disturbance disturbance) { network_.disturb(std::move(disturbance)); }
    // Tells every other node that this incarnation is gone, as the coordinator does.
    void announce_down(NodeId id, Incarnation incarnation, const std::string& reason);
    void announce_up(NodeId id, Incarnation incarnation);
    // Store operations to paths with this prefix fail with this error (a full disk).
    void fail_stores(std::string prefix, Error error);

    // One event; false if none is left.
    bool step();
    // Until `done`, nothing is left, or `limit` of virtual time; whether `done` held.
    bool run_until(const std::function<bool()>& done, Time limit);

    Time now() const { return now_; }
    std::uint64_t events() const { return events_; }  // handed to nodes
    bool alive(NodeId id) const;
    // Messages with blocks in them that this node has sent and that have not come to their ends.
    std::uint64_t underway(NodeId id) const;
    Node& node(NodeId id);
    std::optional<Outcome> outcome(NodeId id) const;
    const std::vector<LedgerEntry>& ledger(NodeId id) { return ledgers_[id]; }
    const std::map<std::string, std::vector<std::byte>>& files() const { return files_; }
    const std::vector<std::string>& log() const { return log_; }
    // Called after every event a node was handed.
    void observe(std::function<void(NodeId, Time)> observer) { observer_ = std::move(observer); }

    struct Traffic {
        std::uint64_t sent = 0;
        std::uint64_t dropped = 0;
        std::uint64_t duplicated = 0;
        std::uint64_t corrupted = 0;
        std::uint64_t refused = 0;  // by the wire
        std::uint64_t older = 0;    // refused as of an older generation
        std::uint64_t payload_bytes = 0;
    };
    const Traffic& traffic() const { return traffic_; }

  private:
    class NodeEffects;
    struct Running {
        Ticket ticket;
        std::unique_ptr<ComputeJob> job;
        bool cancelled = false;
        bool on_pool = false;
        bool begun = false;  // at its virtual start it was not cancelled yet
    };
    // One life of a node.
    struct Place {
        NodeId id;
        Incarnation incarnation;
        std::uint64_t life = 0;      // distinct in a world: shards keep their incarnation
        std::uint64_t underway = 0;  // messages with blocks in them
        std::unique_ptr<Node> node;
        Computer* computer = nullptr;
        std::deque<Running> compute;  // front is running
        std::uint64_t compute_token = 0;
        std::deque<Event> held;  // while paused
        bool paused = false;
        bool spoil = false;
        bool buffers_due = false;
        Time busy_until{};
    };
    // What outlives a node's incarnations.
    struct Seat {
        std::unique_ptr<Place> place;
        std::uint64_t sent = 0;
        std::uint64_t computed = 0;
    };

    // What may be due. Each names the life it is for: another one does not get it.
    struct Whose {
        NodeId id;
        std::uint64_t life = 0;
    };
    static Whose whose(const Place& place) { return {place.id, place.life}; }
    struct ActionDue {
        std::function<void()> action;
    };
    struct PostDue {
        Whose to;
        std::unique_ptr<Event> event;
    };
    struct TimerDue {
        Whose to;
        Tag tag;
    };
    struct ArrivalDue {
        Whose from;
        NodeId to;
        std::unique_ptr<Message> message;
        std::uint64_t key = 0;
        bool corrupt = false;
        bool through_link = false;      // has waited its turn at the receiver's end
        std::optional<Nanos> served{};  // … and in its node, and took so long there
    };
    struct ComputeDue {
        Whose at;
        std::uint64_t token = 0;
    };
    struct StoreDue {
        Whose at;
        Ticket ticket;
        std::unique_ptr<StoreOp> operation;
    };
    struct BuffersDue {
        Whose at;
    };
    // monostate: a timer that was cancelled.
    using Due = std::variant<std::monostate, ActionDue, PostDue, TimerDue, ArrivalDue, ComputeDue,
                             StoreDue, BuffersDue>;

    Seat& seat(NodeId id);
    Place* place(NodeId id) const;
    Place* place(Whose whose) const;
    void deliver(Whose to, Event&& event);
    void hand_over(Place& place, Event&& event);
    void remove(NodeId id);
    void resume(Whose whose);

    void due(std::monostate&&, std::uint64_t) {}
    void due(ActionDue&& action, std::uint64_t) { action.action(); }
    void due(PostDue&& posted, std::uint64_t);
    void due(TimerDue&& timer, std::uint64_t handle);
    void due(ArrivalDue&& arrival, std::uint64_t);
    void due(ComputeDue&& compute, std::uint64_t);
    void due(StoreDue&& store, std::uint64_t);
    void due(BuffersDue&& buffers, std::uint64_t);

    // messages (world_messages.cpp)
    void transmit(Place& from, NodeId to, Message&& message);
    void schedule_arrival(const Network::Copy& copy, ArrivalDue arrival);
    void arrive(ArrivalDue&& arrival);
    bool admitted(const ArrivalDue& arrival);
    void hand_in(ArrivalDue&& arrival, Whose to);
    void came_to_end(Whose sender);
    void buffers_back(Whose sender);
    std::unique_ptr<Message> boxed(Message&& message);

    // computations and stores (world_compute.cpp)
    void compute(Place& place, Ticket ticket, Work&& work);
    void start_compute(Place& place);
    void cancel_compute(Place& place, Ticket ticket);
    void join(Running& running) const;
    void store(Place& place, Ticket ticket, StoreOp&& operation);
    Result<void> keep_file(StoreOp& operation);

    WorldOptions options_;
    Network network_;
    Groups groups_;
    Time now_{};
    std::uint64_t events_ = 0;
    std::uint64_t tickets_ = 0;
    std::uint64_t lives_ = 0;
    EventQueue<Due> queue_;
    std::array<std::vector<Seat>, 4> seats_;  // by role and index
    std::unique_ptr<NodeEffects> effects_;
    // Whom the node that has the turn answers, and how long it took.
    std::optional<std::pair<NodeId, Nanos>> answering_;
    std::vector<std::unique_ptr<Message>> spare_messages_;
    std::map<NodeId, Outcome> outcomes_;
    std::map<NodeId, std::vector<LedgerEntry>> ledgers_;
    std::map<std::string, std::vector<std::byte>> files_;
    std::vector<std::pair<std::string, Error>> store_failures_;
    std::vector<std::string> log_;
    std::function<void(NodeId, Time)> observer_;
    Traffic traffic_;
};

}  // namespace detente::sim
