// What the contract suite needs of a runtime: nodes that know each other, and a run to the end.
// Every runtime brings one; runtimes() lists them all.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente::testing {

class RuntimeUnderTest {
  public:
    virtual ~RuntimeUnderTest() = default;
    // Adds a node; it and the computer outlive the run. Workers can average with each other.
    // Requires: before run().
    virtual void spawn(NodeId self, Node& node, Computer* computer) = 0;
    // Nobody is told of this node before it is announced. Requires: before run().
    virtual void keep_unknown(NodeId self) = 0;
    // As the coordinator tells every node but this one. Requires: called from some node's on().
    virtual void announce_up(NodeId peer, Incarnation incarnation) = 0;
    virtual void announce_down(NodeId peer, Incarnation incarnation, const std::string& reason) = 0;
    // What is stored to this path finds the disk full. Requires: its folder is there; before run().
    virtual void fill_disk(const std::string& path) = 0;
    // Runs until every node has finished. False: not all had at the deadline (of the runtime's own
    // time), and those that had not were ended. Without faults: no message is lost or doubled.
    virtual bool run(Nanos deadline) = 0;
    // After run(): how this node finished; none if it had to be ended.
    virtual std::optional<Outcome> outcome_of(NodeId self) = 0;
    // Entries of this node, in order. Requires: called from its on(), or after run().
    virtual std::vector<LedgerEntry> recorded_by(NodeId self) = 0;
};

struct RuntimeKind {
    std::string name;
    std::function<std::unique_ptr<RuntimeUnderTest>()> make;
};
RuntimeKind simulated();
RuntimeKind zmq_over_tcp();
RuntimeKind zmq_over_ipc();
const std::vector<RuntimeKind>& runtimes();

}  // namespace detente::testing
