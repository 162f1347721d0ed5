// Computing on a device: one stream for what tasks share, one per task for its own part, one for
// copies, with events between them, and page-locked memory of the host where weights and gradients
// are staged. Over LibTorch's own seam for devices, so that this compiles without a toolkit and
// needs no word of CUDA's; what is of CUDA is loaded when a job asks for it.
//
// Within a backward LibTorch chooses the streams itself, those of the forward, and orders them.
//
// A step: weights that are new go to the device in the shared stream, and so does the batch; what
// tasks share runs there; each task's part waits for it in that task's stream; a task's gradients
// go to the host in the stream for copies while the next task's backward runs.
//
// Thread: the engine's compute thread; but LibTorch runs a device's backward on one of its own.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

// What a kind of device brings; tests put a recording stand-in here.
struct Accelerator {
    c10::Device device{c10::kCPU};
    const c10::impl::DeviceGuardImplInterface* streams = nullptr;  // lives as long as the process
    // Page-locked memory of the host, uninitialised: sizes, type.
    std::function<torch::Tensor(torch::IntArrayRef, torch::ScalarType)> pinned;
    std::string name;  // "cuda:0"
};

// A device by LibTorch's name for it: "cuda:1". Loads LibTorch's part for it, which must be before
// LibTorch computes anything in this process, and has it compute the same bits again where it can.
// Errors: not_supported, with what was looked for, where, and what to do.
Result<Accelerator> find_accelerator(const std::string& name);

// A place in a stream's order. Thread: the compute thread.
class StreamEvent {
  public:
    StreamEvent(const Accelerator& on, const c10::Stream& stream);
    ~StreamEvent();
    StreamEvent(StreamEvent&& other) noexcept;
    StreamEvent(const StreamEvent&) = delete;
    StreamEvent& operator=(const StreamEvent&) = delete;
    StreamEvent& operator=(StreamEvent&&) = delete;

    void hold(const c10::Stream& stream) const;  // what comes later in `stream` waits for it
    void wait() const;                           // this thread does

  private:
    const c10::impl::DeviceGuardImplInterface* streams_;
    c10::DeviceIndex device_;
    void* event_ = nullptr;
};

// Values on their way to the host. Until wait() nothing reads or frees them: the destructor waits.
class Arrival {
  public:
    Arrival(std::vector<torch::Tensor> from, std::vector<torch::Tensor> to, StreamEvent done)
        : from_(std::move(from)), to_(std::move(to)), done_(std::move(done)) {}
    ~Arrival();
    Arrival(Arrival&&) = default;
    Arrival(const Arrival&) = delete;
    Arrival& operator=(const Arrival&) = delete;
    Arrival& operator=(Arrival&&) = delete;
    // On the host, in the order they were sent; undefined where what was sent was.
    const std::vector<torch::Tensor>& wait();

  private:
    std::vector<torch::Tensor> from_;  // on the device; empty once it is over
    std::vector<torch::Tensor> to_;
    StreamEvent done_;
};

class DeviceStreams {
  public:
    // Takes its streams. Throws what LibTorch throws.
    DeviceStreams(Accelerator accelerator, std::size_t tasks);

    const c10::Device& device() const { return accelerator_.device; }
    const Accelerator& accelerator() const { return accelerator_; }

    // This thread's work is of the shared stream from here to the end of the scope.
    class Scope {
      public:
        explicit Scope(const DeviceStreams& streams);
        ~Scope();
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

      private:
        const c10::impl::DeviceGuardImplInterface& streams_;
        c10::Stream before_;
    };

    // Splits the work after what the shared stream has so far. Between two enter() this thread
    // works in the task's stream; at the end of the scope in the shared one again, which waits for
    // what every task entered has done. `streams` nullptr: does nothing, as on the processor.
    class Fork {
      public:
        explicit Fork(const DeviceStreams* streams);
        ~Fork();
        Fork(const Fork&) = delete;
        Fork& operator=(const Fork&) = delete;
        void enter(TaskId task);

      private:
        const DeviceStreams* streams_;
        std::optional<StreamEvent> begin_;
        std::vector<TaskId> entered_;
    };

    // A copy on the device, by way of page-locked memory, in the stream that is current.
    torch::Tensor to_device(const torch::Tensor& host) const;
    // Copies on the host: what is current's so far, in the stream for copies. The tensors may be
    // undefined, or on the host already.
    Arrival to_host(std::vector<torch::Tensor> values) const;

  private:
    Accelerator accelerator_;
    c10::Stream shared_;
    c10::Stream copies_;
    std::vector<c10::Stream> tasks_;
};

// The weights of a model on a device, and their copies on the host, page-locked, which are what
// the rest of the worker reads and writes.
//
// Invariant: a copy on the host is not written while the device still reads it.
class DeviceWeights {
  public:
    // Moves the values of `tensors` to the device; what they are keeps its identity. An undefined
    // one is not moved, and not held.
    DeviceWeights(const DeviceStreams& streams, std::vector<torch::Tensor> tensors);

    bool holds(std::size_t index) const { return device_[index].defined(); }
    std::span<const float> host(std::size_t index) const;
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> values);
    // Sends what was loaded since the last time, in the stream that is current.
    void send();

  private:
    const DeviceStreams& streams_;
    std::vector<torch::Tensor> device_;
    std::vector<torch::Tensor> host_;
    std::vector<bool> newer_;             // than the device's, by tensor
    std::optional<StreamEvent> sending_;  // the last send()
};

}  // namespace detente
