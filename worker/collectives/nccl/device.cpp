#include "worker/collectives/nccl/device.h"

#include <algorithm>
#include <utility>

namespace detente {

Error cuda_error(const NcclSymbols& symbols, const std::string& doing, cudaError_t code) {
    const ErrorCode kind =
        code == cudaErrorMemoryAllocation ? ErrorCode::over_limit : ErrorCode::io;
    return fail(kind, doing + " failed: " + symbols.cuda_text(code));
}

Result<std::shared_ptr<Device>> Device::open(const NcclSymbols& symbols, int number) {
    if (const auto code = symbols.set_device(number); code != cudaSuccess) {
        return cuda_error(symbols, "using CUDA device " + std::to_string(number), code);
    }
    std::shared_ptr<Device> device(new Device(symbols, number));
    const auto code = symbols.create_stream(&device->stream_, cudaStreamNonBlocking);
    if (code != cudaSuccess) {
        return cuda_error(symbols, "making a stream on CUDA device " + std::to_string(number),
                          code);
    }
    return device;
}

Device::~Device() {
    // Waits for what runs there. What is abandoned may run for ever, so it is left to the process's
    // end.
    if (abandoned_) return;
    if (stream_ != nullptr) symbols_.destroy_stream(stream_);
    for (const Staging& staging : pool_) free(staging);
}

Result<Staging> Device::make(std::size_t bytes) const {
    Staging staging;
    staging.bytes = std::max<std::size_t>(bytes, 256);
    const std::string amount = std::to_string(staging.bytes) + " bytes";
    // Whatever thread this is, of a process that may use several devices.
    auto code = symbols_.set_device(number_);
    if (code != cudaSuccess) return cuda_error(symbols_, "using the device", code);
    void* host = nullptr;
    code = symbols_.allocate_pinned(&host, staging.bytes, cudaHostAllocDefault);
    if (code != cudaSuccess) return cuda_error(symbols_, "pinning " + amount, code);
    staging.host = static_cast<std::byte*>(host);
    code = symbols_.allocate(&staging.device, staging.bytes);
    if (code == cudaSuccess) {
        code = symbols_.create_event(&staging.done, cudaEventDisableTiming);
    }
    if (code == cudaSuccess) return staging;
    free(staging);
    return cuda_error(symbols_, "taking " + amount + " of device memory", code);
}

void Device::free(const Staging& staging) const {
    if (staging.host != nullptr) symbols_.release_pinned(staging.host);
    if (staging.device != nullptr) symbols_.release(staging.device);
    if (staging.done != nullptr) symbols_.destroy_event(staging.done);
}

Result<std::shared_ptr<Staging>> Device::staging(std::size_t bytes) {
    Staging found;
    {
        const std::lock_guard lock(mutex_);
        auto best = pool_.end();
        for (auto it = pool_.begin(); it != pool_.end(); ++it) {
            const bool fits = it->bytes >= bytes;
            if (fits && (best == pool_.end() || it->bytes < best->bytes)) best = it;
        }
        if (best != pool_.end()) {
            found = *best;
            pool_.erase(best);
        }
    }
    if (found.host == nullptr) {
        auto made = make(bytes);
        if (made.has_error()) return made.error();
        found = *made;
    }
    {
        const std::lock_guard lock(mutex_);
        in_use_.push_back(found);
    }
    return std::shared_ptr<Staging>(new Staging(found),
                                    [device = shared_from_this()](Staging* staging) {
                                        device->take_back(*staging);
                                        delete staging;
                                    });
}

bool Device::owns(std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    return std::any_of(in_use_.begin(), in_use_.end(), [&](const Staging& one) {
        return bytes.data() >= one.host && bytes.data() + bytes.size() <= one.host + one.bytes;
    });
}

void Device::take_back(const Staging& staging) {
    const std::lock_guard lock(mutex_);
    std::erase_if(in_use_, [&](const Staging& one) { return one.host == staging.host; });
    pool_.push_back(staging);
}

}  // namespace detente
