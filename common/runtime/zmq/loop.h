// The real runtime of one node: sockets (transport.h), timers on a steady clock, one compute
// thread, one disk thread. Time is counted since the loop was opened.
//
// run() owns everything but post(): events reach the node one after the other on the thread that
// calls run(), effects are released in order after each. Nothing spins: the loop sleeps in poll
// until a message, a timer, a posted event or a returned buffer.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "common/runtime/loop.h"
#include "common/runtime/zmq/buffered_effects.h"
#include "common/runtime/zmq/compute_thread.h"
#include "common/runtime/zmq/counters.h"
#include "common/runtime/zmq/inbox.h"
#include "common/runtime/zmq/options.h"
#include "common/runtime/zmq/side_thread.h"
#include "common/runtime/zmq/timers.h"
#include "common/runtime/zmq/transport.h"
#include "common/runtime/zmq/wakeup.h"

namespace detente {

class ZmqLoop final : public EventSink {
  public:
    // Opens the sockets; a shard binds. io: the address is taken, the text names it.
    static Result<std::unique_ptr<ZmqLoop>> open(ZmqLoopOptions options);
    ~ZmqLoop() override;

    // What peers need to reach this node; tcp and ipc are empty for nodes that bind nothing.
    Endpoint endpoint() const { return transport_->endpoint(); }

    // A control link or ledger that could only be made after the loop. Requires: before run().
    void attach(ControlLink& control) { options_.control = &control; }
    void attach(LedgerSink& ledger) { options_.ledger = &ledger; }
    void attach(Reducer& reducer) { options_.reducer = &reducer; }

    // Runs the node until it finishes; then gives what was sent up to `linger` to leave, cancels
    // what is being computed, writes what was to be stored, and closes everything. Requires: once.
    Outcome run(Node& node);

    // Thread: any. Never blocks; above 65,536 waiting events it is dropped and counted.
    void post(Event event) override;
    // The same, for results that somebody waits for: not dropped. Thread: any.
    void deliver(Event event);

    LoopCounters counters() const;  // thread: any

  private:
    explicit ZmqLoop(ZmqLoopOptions options);

    Time now() const;
    void round();
    void dispatch(Event&& event);
    void release(Time emitted);
    void apply(Effect&& effect, Time emitted);
    void send(NodeId to, Message&& message, Time emitted);
    void report_refusals(Body& body) const;
    void start_compute(Ticket ticket, Work&& work);
    void start_store(Ticket ticket, StoreOp&& operation);
    void start_form(Group&& group, Nanos deadline);
    void start_reduce(ReduceEffect&& effect);

    bool take_posted();
    void take_control(Event&& event);
    bool take_returned();
    bool fire_timers();
    void dispatch_deferred();
    void flush_ledger(bool now_or_never);
    void ledger_failed(const Error& error);
    std::optional<Nanos> most_sleep();
    void wind_down();
    void log(LogLevel level, std::string_view text) const;

    ZmqLoopOptions options_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    CounterCells counters_;
    std::atomic<std::uint64_t> posts_dropped_{0};
    Wakeup wakeup_;
    Inbox inbox_{wakeup_};
    std::unique_ptr<Transport> transport_;
    TimerHeap timers_;
    BufferedEffects effects_;
    std::vector<Effect> releasing_;
    std::vector<Event> deferred_;  // results known at once; dispatched after the release
    std::unique_ptr<ComputeThread> compute_;
    std::unique_ptr<SideThread> disk_;
    // Whose message is being handled, since when: what goes back to it in the same event answers
    // it.
    std::optional<NodeId> answering_;
    Time dispatched_{};
    Time last_flush_;
    bool ledger_dirty_ = false;
    Node* node_ = nullptr;
    bool ran_ = false;
    bool finished_ = false;
    Outcome outcome_;
};

}  // namespace detente
