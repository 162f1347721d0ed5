// Runs a node's collectives on a thread beside its loop, so that one task's average overlaps the
// next task's backward. Every begin() ends exactly once, through `ended`; nothing is lost when a
// group breaks. With nothing in flight the thread sleeps.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "worker/collectives/collective.h"

namespace detente {

// Called on the collective thread; each hands what it is told to the loop, as an event.
struct CollectiveSink {
    std::function<void(GroupEpoch, Result<void>)> formed;
    // What begin() was refused ends broken too, with nobody missing unless the group is broken;
    // the group then breaks over this member, as `broken` says next, unless the key is of another
    // one. The gradient comes back with it, to be dropped on the loop's thread.
    std::function<void(CollectiveEnd)> ended;
    // Once per group, also if nothing was in flight.
    std::function<void(GroupEpoch, Broken)> broken;
};

// Thread: form(), begin() and stop() are the loop's; buffer() is any's.
class CollectiveThread {
  public:
    // The backend outlives this, and is used on the collective thread only.
    CollectiveThread(CollectiveBackend& backend, WorkerId self, CollectiveSink sink);
    ~CollectiveThread() { stop(); }
    CollectiveThread(const CollectiveThread&) = delete;
    CollectiveThread& operator=(const CollectiveThread&) = delete;

    // Leaves the group so far (what is in flight there ends broken), and joins this one.
    void form(Group group, Nanos deadline);
    void begin(const CollectiveKey& key, GradientShare share, Nanos deadline);
    // Of the group formed last. peer_lost: there is none.
    Result<GradientBuffer> buffer(std::size_t bytes);
    // Leaves the group and ends the thread. Blocks, while a group is being formed until its
    // deadline.
    void stop();

  private:
    struct Forming {
        Group group;
        Nanos deadline;
    };
    struct Beginning {
        CollectiveKey key;
        GradientShare share;
        Nanos deadline;
    };
    using Request = std::variant<Forming, Beginning>;

    void submit(Request request);
    void run();
    bool take_requests();  // false: stop
    void do_form(const Forming& forming);
    void do_begin(Beginning beginning);
    void give_up_what_is_in_flight();
    void poll_once();
    void sleep();

    CollectiveBackend& backend_;
    const WorkerId self_;
    const CollectiveSink sink_;

    std::mutex mutex_;  // of requests_, stopping_ and the pointer collective_
    std::condition_variable changed_;
    std::deque<Request> requests_;
    bool stopping_ = false;
    std::shared_ptr<Collective> collective_;
    // Keys and what was brought to them; the collective thread's.
    std::vector<std::pair<CollectiveKey, Payload>> in_flight_;
    bool told_broken_ = false;
    std::thread thread_;
};

}  // namespace detente
