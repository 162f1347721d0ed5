// What the parts of a real process need of each other: the loop that runs a node, and the control
// link to the coordinator beside it.
#pragma once

#include "common/messages.h"
#include "common/runtime/contracts.h"

namespace detente {

// To the coordinator. Thread: send() may be called from any loop's thread.
class ControlLink {
  public:
    virtual ~ControlLink() = default;
    virtual void send(Message message) = 0;
};

// Where ledger entries go. Thread: the loop's.
class LedgerSink {
  public:
    virtual ~LedgerSink() = default;
    // Encodes into memory; an earlier write's failure (disk full) is returned here once.
    virtual Result<void> append(const LedgerEntry& entry) = 0;
    // Hands what is buffered to the disk; called when the loop is idle, at most every 100 ms.
    virtual Result<void> flush() = 0;
};

// Averages with other nodes of the group (worker/collectives). Thread: the loop's; what comes of it
// is posted to the loop as GroupFormed, Reduced and GroupBroken, and never dropped.
class Reducer {
  public:
    virtual ~Reducer() = default;
    virtual void form(Group group, Nanos deadline) = 0;
    virtual void reduce(const CollectiveKey& key, GradientShare share, Nanos deadline) = 0;
    // Nothing is posted when this has returned.
    virtual void stop() = 0;
};

// Takes events from other threads (control link, signals). Thread: any.
class EventSink {
  public:
    virtual ~EventSink() = default;
    // Received from the coordinator: Welcome and PeerChange also teach the loop its peers'
    // endpoints, and PeerChange reaches the node as PeerUp or PeerDown.
    virtual void post(Event event) = 0;
};

}  // namespace detente
