// A thread beside a loop that does one blocking thing after the other: computing, writing files.
// Started at its first job; idle it sleeps. Jobs are few per step, so a mutex does.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace detente {

// Thread: submit() and stop() are the loop's.
class SideThread {
  public:
    using Job = std::function<void()>;  // does not throw

    explicit SideThread(const char* name) : name_(name) {}
    ~SideThread() { stop(); }
    SideThread(const SideThread&) = delete;
    SideThread& operator=(const SideThread&) = delete;

    void submit(Job job);
    // Runs what was submitted, then ends the thread. Blocks.
    void stop();

  private:
    void run();

    const char* name_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Job> jobs_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace detente
