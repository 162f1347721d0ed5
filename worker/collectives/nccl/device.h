// One device with a stream of its own, and pieces of memory for one average each: pinned on the
// host, its like on the device, and an event. Pieces are used again, since pinning is slow.
//
// Thread: the collective's; a Staging may be dropped on any.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "worker/collectives/nccl/symbols.h"

namespace detente {

// Of one average. Invariant: nobody uses it while it is in the pool.
struct Staging {
    std::byte* host = nullptr;  // pinned
    void* device = nullptr;
    std::size_t bytes = 0;
    cudaEvent_t done = nullptr;
};

class Device : public std::enable_shared_from_this<Device> {
  public:
    // io: the device refuses; the text says what was asked of it.
    static Result<std::shared_ptr<Device>> open(const NcclSymbols& symbols, int number);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    int number() const { return number_; }
    cudaStream_t stream() const { return stream_; }
    const NcclSymbols& symbols() const { return symbols_; }
    // At least so many bytes; back in the pool when it is dropped. over_limit: no memory.
    // Thread: any.
    Result<std::shared_ptr<Staging>> staging(std::size_t bytes);
    // Whether these bytes lie in pinned memory of ours that is in use. Thread: any.
    bool owns(std::span<const std::byte> bytes);
    // Nothing of it is used again: what runs on the device may still write there.
    void abandon() { abandoned_ = true; }

  private:
    Device(const NcclSymbols& symbols, int number) : symbols_(symbols), number_(number) {}
    Result<Staging> make(std::size_t bytes) const;
    void free(const Staging& staging) const;
    void take_back(const Staging& staging);

    const NcclSymbols symbols_;
    const int number_;
    cudaStream_t stream_ = nullptr;
    bool abandoned_ = false;
    std::mutex mutex_;  // of both below; a few calls per bucket
    std::vector<Staging> pool_;
    std::vector<Staging> in_use_;
};

// "cudaMalloc of 4096 bytes failed: out of memory" for what a call returned.
Error cuda_error(const NcclSymbols& symbols, const std::string& doing, cudaError_t code);

}  // namespace detente
