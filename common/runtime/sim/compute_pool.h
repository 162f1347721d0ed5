// Real threads beside a world: a computation runs from its virtual start on and is joined at its
// virtual finish, so that computations overlap though events do not.
//
// Thread: start() and wait() are the world's; computers run on the pool's threads. A job is the
// world's again once wait() has returned, and only then may it go: no thread of the pool keeps a
// reference to what it computed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/runtime/contracts.h"

namespace detente::sim {

struct ComputeJob {
    Computer* computer = nullptr;
    Work work;
    std::atomic<bool> cancelled{false};
    std::vector<std::pair<std::uint32_t, Payload>> parts;
    std::optional<WorkResult> result;
    bool done = false;  // the pool's: read under its mutex

    // On the calling thread, whole.
    void run();
};

class ComputePool {
  public:
    // Requires: threads > 0.
    explicit ComputePool(std::size_t threads);
    ~ComputePool();  // Requires: every job was waited for
    ComputePool(const ComputePool&) = delete;
    ComputePool& operator=(const ComputePool&) = delete;

    // Requires: no other unfinished job of this computer.
    void start(ComputeJob& job);
    void wait(const ComputeJob& job);

  private:
    void work();

    std::mutex mutex_;  // a computation takes far longer than it is held
    std::condition_variable changed_;
    std::condition_variable finished_;
    std::deque<ComputeJob*> queue_;
    bool closing_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace detente::sim
