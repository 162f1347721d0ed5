// The simulated runtime: one world, virtual time.
#include <memory>
#include <utility>

#include "common/runtime/sim/world.h"
#include "tests/contracts/runtime_under_test.h"

namespace detente::testing {
namespace {

// The world owns its nodes; the suite's belong to the test.
class Borrowed : public Node {
  public:
    explicit Borrowed(Node& node) : node_(node) {}
    void on(Event&& event, Time now, Effects& effects) override {
        node_.on(std::move(event), now, effects);
    }

  private:
    Node& node_;
};

class SimulatedUnderTest : public RuntimeUnderTest {
  public:
    void spawn(NodeId self, Node& node, Computer* computer) override {
        world_.add(self, Incarnation{1}, std::make_unique<Borrowed>(node), computer);
        nodes_.push_back(self);
    }
    void keep_unknown(NodeId /*self*/) override {}  // there is nothing to know: no addresses
    void announce_up(NodeId peer, Incarnation incarnation) override {
        world_.announce_up(peer, incarnation);
    }
    void announce_down(NodeId peer, Incarnation incarnation, const std::string& reason) override {
        world_.announce_down(peer, incarnation, reason);
    }
    void fill_disk(const std::string& path) override {
        world_.fail_stores(path, fail(ErrorCode::io, "cannot write " + path + ": no space left"));
    }
    bool run(Nanos deadline) override {
        const auto all_finished = [this] {
            for (const NodeId node : nodes_) {
                if (world_.alive(node)) return false;
            }
            return true;
        };
        return world_.run_until(all_finished, Time{deadline});
    }
    std::optional<Outcome> outcome_of(NodeId self) override { return world_.outcome(self); }
    std::vector<LedgerEntry> recorded_by(NodeId self) override { return world_.ledger(self); }

  private:
    sim::World world_{sim::WorldOptions{}};
    std::vector<NodeId> nodes_;
};

}  // namespace

RuntimeKind simulated() {
    return {"simulated", [] { return std::make_unique<SimulatedUnderTest>(); }};
}

}  // namespace detente::testing
