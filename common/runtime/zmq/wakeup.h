// Wakes a loop that sleeps in poll. A notice costs a system call only if the loop really sleeps.
//
// Protocol: the loop calls prepare(), then looks at its queues once more, sleeps only if they are
// empty, and calls done(). Others push to a queue first and notify() after.
#pragma once

#include <atomic>

namespace detente {

class Wakeup {
  public:
    Wakeup();
    ~Wakeup();
    Wakeup(const Wakeup&) = delete;
    Wakeup& operator=(const Wakeup&) = delete;

    int descriptor() const { return descriptor_; }  // readable when notified
    void notify();                                  // thread: any
    void prepare() { sleeping_.store(true); }       // thread: the loop's
    void done(bool readable);                       // thread: the loop's

  private:
    int descriptor_ = -1;
    std::atomic<bool> sleeping_{false};
};

}  // namespace detente
