// The real runtime, one thread per node in this process.
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <future>
#include <thread>
#include <utility>

#include "common/runtime/zmq/loop.h"
#include "launch/collective_backend.h"
#include "tests/contracts/runtime_under_test.h"
#include "worker/collectives/shared_memory.h"

namespace detente::testing {
namespace {

class CollectedLedger : public LedgerSink {
  public:
    Result<void> append(const LedgerEntry& entry) override {
        entries.push_back(entry);
        return {};
    }
    Result<void> flush() override { return {}; }
    std::vector<LedgerEntry> entries;
};

// The node under test sees Started when the peers are known, as it does in a job; Stop ends it.
class Gate : public Node {
  public:
    explicit Gate(Node& node) : node_(node) {}
    void on(Event&& event, Time now, Effects& effects) override {
        if (std::holds_alternative<Started>(event)) return;
        if (const auto* received = std::get_if<Received>(&event)) {
            if (std::holds_alternative<Welcome>(received->message.body)) {
                node_.on(Started{}, now, effects);
                return;
            }
            if (std::holds_alternative<Stop>(received->message.body)) {
                ended = true;
                effects.finish({});
                return;
            }
        }
        node_.on(std::move(event), now, effects);
    }
    bool ended = false;

  private:
    Node& node_;
};

// Different from any other test's and any other process's.
std::string unique_run() {
    static std::atomic<int> count{0};
    return "contracts-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

class ZmqUnderTest : public RuntimeUnderTest {
  public:
    explicit ZmqUnderTest(TransportKind kind) : kind_(kind) {}

    void spawn(NodeId self, Node& node, Computer* computer) override {
        auto& place = places_.emplace_back(std::make_unique<Place>(node));
        place->self = self;
        ZmqLoopOptions options;
        options.self = self;
        options.host = "here";
        options.transport = kind_;
        options.computer = computer;
        options.ledger = &place->ledger;
        auto loop = ZmqLoop::open(std::move(options));
        REQUIRE(loop.has_value());
        place->loop = std::move(*loop);
        if (self.role != Role::worker) return;
        const SharedMemoryOptions memory{run_, std::size_t{1} << 20U};
        place->reducer = std::make_unique<NodeReducer>(
            std::make_unique<SharedMemoryBackend>(memory), WorkerId{self.index}, *place->loop);
        place->loop->attach(*place->reducer);
    }

    void keep_unknown(NodeId self) override { at(self).unknown = true; }

    void announce_up(NodeId peer, Incarnation incarnation) override {
        PeerChange change{peer, incarnation, true, "", {}};
        change.endpoint.node = peer;
        change.endpoint.incarnation = incarnation;
        for (auto& place : places_) {
            if (place->self == peer) change.endpoint = place->loop->endpoint();
        }
        tell_others(change);
    }
    void announce_down(NodeId peer, Incarnation incarnation, const std::string& reason) override {
        tell_others({peer, incarnation, false, reason, {}});
    }

    // The file that is written first is the device that is always full.
    void fill_disk(const std::string& path) override {
        std::filesystem::create_symlink("/dev/full", path + ".partial");
    }

    bool run(Nanos deadline) override {
        Welcome welcome;
        for (auto& place : places_) {
            if (!place->unknown) welcome.peers.push_back(place->loop->endpoint());
        }
        // All are welcomed before any runs, and may announce something to the others.
        for (auto& place : places_) place->loop->post(Received{Message{Envelope{}, welcome}});
        std::vector<std::future<Outcome>> ends;
        for (auto& place : places_) {
            ends.push_back(std::async(std::launch::async,
                                      [&place = *place] { return place.loop->run(place.gate); }));
        }
        const auto until = std::chrono::steady_clock::now() + deadline;
        for (std::size_t i = 0; i < ends.size(); ++i) {
            if (ends[i].wait_until(until) == std::future_status::timeout) {
                places_[i]->loop->post(Received{Message{Envelope{}, Stop{"deadline", false}}});
            }
            places_[i]->outcome = ends[i].get();
        }
        bool all = true;
        for (auto& place : places_) all = all && !place->gate.ended;
        return all;
    }

    std::optional<Outcome> outcome_of(NodeId self) override {
        Place& place = at(self);
        if (place.gate.ended) return std::nullopt;
        return place.outcome;
    }
    std::vector<LedgerEntry> recorded_by(NodeId self) override { return at(self).ledger.entries; }

  private:
    struct Place {
        explicit Place(Node& node) : gate(node) {}
        NodeId self;
        Gate gate;
        bool unknown = false;
        CollectedLedger ledger;
        std::unique_ptr<ZmqLoop> loop;
        std::unique_ptr<NodeReducer> reducer;
        Outcome outcome;
    };
    void tell_others(const PeerChange& change) {
        for (auto& place : places_) {
            if (place->self == change.node) continue;
            place->loop->post(Received{Message{Envelope{}, change}});
        }
    }
    Place& at(NodeId self) {
        for (auto& place : places_) {
            if (place->self == self) return *place;
        }
        FAIL("no such node was spawned");
        throw;
    }

    TransportKind kind_;
    std::string run_ = unique_run();
    std::vector<std::unique_ptr<Place>> places_;
};

}  // namespace

RuntimeKind zmq_over_tcp() {
    return {"zmq over tcp", [] { return std::make_unique<ZmqUnderTest>(TransportKind::tcp); }};
}
RuntimeKind zmq_over_ipc() {
    return {"zmq over ipc", [] { return std::make_unique<ZmqUnderTest>(TransportKind::ipc); }};
}

}  // namespace detente::testing
