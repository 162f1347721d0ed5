#include "common/runtime/sim/compute_pool.h"

#include <exception>
#include <string>

#include "common/invariant.h"

namespace detente::sim {

void ComputeJob::run() {
    try {
        result.emplace(computer->run(work, cancelled, [this](std::uint32_t index, Payload payload) {
            parts.emplace_back(index, std::move(payload));
        }));
    } catch (const std::exception& thrown) {
        result.emplace(
            fail(ErrorCode::internal, std::string("the computation threw: ") + thrown.what()));
    }
}

ComputePool::ComputePool(std::size_t threads) {
    invariant(threads > 0, "a pool has a thread");
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

ComputePool::~ComputePool() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        closing_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void ComputePool::start(ComputeJob& job) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(&job);
    }
    changed_.notify_one();
}

void ComputePool::wait(const ComputeJob& job) {
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [&job] { return job.done; });
}

void ComputePool::work() {
    for (;;) {
        ComputeJob* job = nullptr;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
            if (queue_.empty()) return;
            job = queue_.front();
            queue_.pop_front();
        }
        job->run();
        {
            // The last look at the job: who waits may destroy it as soon as the mutex is free.
            const std::lock_guard<std::mutex> lock(mutex_);
            job->done = true;
        }
        finished_.notify_all();
    }
}

}  // namespace detente::sim
