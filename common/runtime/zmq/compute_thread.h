// Runs a Computer's work one after the other on a thread of its own; parts and ends go to the
// loop's inbox. Invariant: every ticket ends exactly once, cancelled or not.
#pragma once

#include <atomic>
#include <memory>
#include <unordered_map>

#include "common/runtime/contracts.h"
#include "common/runtime/zmq/inbox.h"
#include "common/runtime/zmq/side_thread.h"

namespace detente {

// Thread: all methods are the loop's.
class ComputeThread {
  public:
    ComputeThread(Computer& computer, Inbox& inbox) : computer_(computer), inbox_(inbox) {}

    void submit(Ticket ticket, Work work);
    void cancel(Ticket ticket);  // an ended or unknown ticket is ignored
    // The loop has taken the end event of this ticket.
    void ended(Ticket ticket) { jobs_.erase(ticket.value); }
    // Cancels everything and waits for the computation that runs to notice.
    void stop();

  private:
    // The work dies with the job, on the loop's thread: it holds payloads.
    struct Job {
        Ticket ticket;
        Work work;
        std::atomic<bool> cancelled{false};
    };
    WorkResult compute(const Job& job);

    Computer& computer_;
    Inbox& inbox_;
    std::unordered_map<std::uint64_t, std::shared_ptr<Job>> jobs_;
    SideThread thread_{"compute"};
};

}  // namespace detente
