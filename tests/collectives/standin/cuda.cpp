// CUDA's runtime, as far as the module of collectives uses it, without a device. Sixteen devices
// of one host, or as many as DETENTE_STANDIN_DEVICES says.
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "tests/collectives/standin/stream.h"

namespace detente::standin {

int& current_device() {
    thread_local int device = 0;
    return device;
}

Stream::~Stream() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        changed_.notify_one();
    }
    thread_.join();
}

void Stream::add(Operation operation) {
    const std::lock_guard lock(mutex_);
    operations_.push_back(std::move(operation));
    changed_.notify_one();
}

void Stream::run() {
    for (;;) {
        Operation operation;
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return stopping_ || !operations_.empty(); });
            if (operations_.empty()) return;
            operation = std::move(operations_.front());
            operations_.pop_front();
        }
        operation();
    }
}

namespace {

struct Event {
    std::shared_ptr<std::atomic<bool>> happened = std::make_shared<std::atomic<bool>>(true);
};

int devices() {
    const char* text = std::getenv("DETENTE_STANDIN_DEVICES");
    return text != nullptr ? std::atoi(text) : 16;
}

Stream* stream_of(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }
Event* event_of(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }

}  // namespace
}  // namespace detente::standin

using detente::standin::bytes_at;
using detente::standin::device_address;
using detente::standin::devices;
using detente::standin::event_of;
using detente::standin::stream_of;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = devices();
    return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
    detente::standin::current_device() = device;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** device, size_t bytes) {
    *device = device_address(std::malloc(bytes));
    return cudaSuccess;
}
cudaError_t cudaFree(void* device) {
    std::free(bytes_at(device));
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** host, size_t bytes, unsigned int) {
    *host = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *host != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* host) {
    std::free(host);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) {
    *stream = reinterpret_cast<cudaStream_t>(new detente::standin::Stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream_of(stream);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToHost) {
        return cudaErrorInvalidMemcpyDirection;
    }
    stream_of(stream)->add([=] {
        const bool upload = kind == cudaMemcpyHostToDevice;
        std::memcpy(upload ? bytes_at(to) : to, upload ? from : bytes_at(from), bytes);
    });
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* device, int value, size_t bytes, cudaStream_t stream) {
    stream_of(stream)->add([=] { std::memset(bytes_at(device), value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int) {
    *event = reinterpret_cast<cudaEvent_t>(new detente::standin::Event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    auto happened = std::make_shared<std::atomic<bool>>(false);
    event_of(event)->happened = happened;
    stream_of(stream)->add([happened] { happened->store(true); });
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    return event_of(event)->happened->load() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event_of(event);
    return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t code) {
    if (code == cudaErrorNoDevice) return "no CUDA-capable device is detected";
    if (code == cudaErrorMemoryAllocation) return "out of memory";
    return code == cudaSuccess ? "no error" : "the stand-in's error";
}

}  // extern "C"
