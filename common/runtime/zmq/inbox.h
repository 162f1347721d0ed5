// Events from other threads on their way to a loop: the control link's, the compute thread's, the
// disk thread's. Any thread posts, the loop takes.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "common/runtime/contracts.h"
#include "common/runtime/zmq/mpsc_stack.h"
#include "common/runtime/zmq/wakeup.h"

namespace detente {

struct Posted {
    Posted* next = nullptr;
    Event event;
    // What must be dropped on the loop's thread: a Work or StoreOp that holds payloads.
    std::shared_ptr<void> kept;
    bool counted = false;
};

class Inbox {
  public:
    // Of events posted from outside and not yet taken.
    static constexpr std::size_t kMostForeign = 1U << 16U;

    explicit Inbox(Wakeup& wakeup) : wakeup_(wakeup) {}
    ~Inbox();
    Inbox(const Inbox&) = delete;
    Inbox& operator=(const Inbox&) = delete;

    // From outside the loop's own threads: bounded; false if full (the event is dropped).
    bool post(Event event);
    // Ends and parts of the loop's own tickets: never dropped, bounded by the tickets in flight.
    void deliver(Event event, std::shared_ptr<void> kept);
    // Oldest first; the caller owns the chain. Thread: the loop's.
    Posted* take();
    bool empty() const { return stack_.empty(); }

  private:
    Wakeup& wakeup_;
    MpscStack<Posted> stack_;
    std::atomic<std::size_t> foreign_{0};
};

}  // namespace detente
