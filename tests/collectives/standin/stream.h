// The stand-in's CUDA: a stream is a thread that does one thing after the other, device memory is
// memory at addresses the host cannot use, so that whoever touches it from the host crashes.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace detente::standin {

// What a stream does next.
using Operation = std::function<void()>;

class Stream {
  public:
    Stream() : thread_([this] { run(); }) {}
    ~Stream();
    void add(Operation operation);

  private:
    void run();
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Operation> operations_;
    bool stopping_ = false;
    std::thread thread_;
};

// As cudaSetDevice last said on this thread.
int& current_device();

// Device address ↔ where its bytes are. Beyond what any process can map.
inline constexpr std::uintptr_t kFarAway = std::uintptr_t{1} << 62U;
inline void* device_address(void* bytes) {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(bytes) + kFarAway);
}
inline void* bytes_at(const void* device) {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(device) - kFarAway);
}

}  // namespace detente::standin
