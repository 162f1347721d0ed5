// A device that is the processor, with streams that only record: what was put in which, and what
// waits for what. Every operator LibTorch runs is of the stream that is current, so that reading or
// overwriting what another stream made, without having waited for it, is found out: on a GPU that
// would be a race.
//
// Stream 0 is the host: what it does is over at once.
//
// Thread: one.
#pragma once

#include <ATen/record_function.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "worker/torch/device.h"

namespace detente::toy {

using Clock = std::map<c10::StreamId, std::uint64_t>;  // of each stream: so far, it is over

inline void join(Clock& clock, const Clock& other) {
    for (const auto& [stream, tick] : other) clock[stream] = std::max(clock[stream], tick);
}

class RecordingDevice final : public c10::impl::DeviceGuardImplInterface {
  public:
    RecordingDevice() {
        now_ = this;
        callback_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&start, &end)
                                                   .needsInputs(true)
                                                   .needsOutputs(true)
                                                   .scopes({at::RecordScope::FUNCTION}));
    }
    ~RecordingDevice() override {
        at::removeCallback(callback_);
        now_ = nullptr;
    }

    Accelerator accelerator() {
        Accelerator accelerator;
        accelerator.device = c10::Device(c10::kCPU);
        accelerator.streams = this;
        accelerator.pinned = [this](torch::IntArrayRef sizes, torch::ScalarType type) {
            torch::Tensor made = torch::empty(sizes, type);
            pinned_.insert(made.storage().data());
            return made;
        };
        accelerator.name = "recorded";
        return accelerator;
    }

    // Whether this thread may read there: it has waited for who wrote it.
    bool readable(const void* storage) const {
        const auto at = memory_.find(storage);
        return at == memory_.end() || over(at->second.written, host_);
    }
    // Whether the host has waited for all that was put in any stream.
    bool idle() const {
        return std::all_of(clocks_.begin(), clocks_.end(), [this](const auto& one) {
            const auto& [stream, clock] = one;
            const auto at = clock.find(stream);
            return at == clock.end() || over({stream, at->second}, host_);
        });
    }
    std::size_t streams() const { return static_cast<std::size_t>(last_stream_); }
    std::size_t events_alive() const { return events_.size(); }

    std::vector<std::string> races;                      // a sentence each
    std::map<c10::StreamId, std::uint64_t> operators;    // by stream
    std::map<c10::StreamId, std::uint64_t> from_pinned;  // copies out of page-locked memory
    mutable std::size_t waits = 0;                       // of the host

    c10::DeviceType type() const override { return c10::kCPU; }
    c10::Device exchangeDevice(c10::Device device) const override { return device; }
    c10::Device getDevice() const override { return c10::Device(c10::kCPU); }
    void setDevice(c10::Device /*device*/) const override {}
    void uncheckedSetDevice(c10::Device /*device*/) const noexcept override {}
    c10::DeviceIndex deviceCount() const noexcept override { return 1; }
    c10::Stream getStream(c10::Device device) const override { return stream(device, current_); }
    c10::Stream getNewStream(c10::Device device, int /*priority*/) const override {
        return stream(device, ++last_stream_);
    }
    c10::Stream exchangeStream(c10::Stream next) const override {
        const auto before = stream(next.device(), current_);
        current_ = next.id();
        return before;
    }
    void record(void** event, const c10::Stream& stream, c10::DeviceIndex /*device*/,
                c10::EventFlag /*flag*/) const override {
        if (*event == nullptr) {
            events_.push_back(std::make_unique<Clock>());
            *event = events_.back().get();
        }
        join(clocks_[stream.id()], host_);
        *static_cast<Clock*>(*event) = clocks_[stream.id()];
    }
    void block(void* event, const c10::Stream& stream) const override {
        join(clocks_[stream.id()], *static_cast<Clock*>(event));
    }
    void synchronizeEvent(void* event) const override {
        ++waits;
        join(host_, *static_cast<Clock*>(event));
    }
    void destroyEvent(void* event, c10::DeviceIndex /*device*/) const noexcept override {
        std::erase_if(events_, [event](const auto& one) { return one.get() == event; });
    }

  private:
    struct Access {
        c10::StreamId stream = 0;
        std::uint64_t tick = 0;
    };
    struct Memory {
        Access written;
        std::vector<Access> read;  // since then
    };
    static c10::Stream stream(c10::Device device, c10::StreamId id) {
        return c10::Stream(c10::Stream::UNSAFE, device, id);
    }
    static bool over(const Access& access, const Clock& clock) {
        const auto at = clock.find(access.stream);
        return access.tick == 0 || (at != clock.end() && at->second >= access.tick);
    }
    static std::vector<const void*> storages(at::ArrayRef<c10::IValue> values) {
        std::vector<const void*> found;
        const auto add = [&found](const at::Tensor& tensor) {
            if (!tensor.defined() || !tensor.has_storage()) return;
            if (tensor.storage().data() == nullptr) return;
            found.push_back(tensor.storage().data());
            // So that no later value has its address.
            now_->kept_.push_back(tensor.storage());
        };
        for (const c10::IValue& value : values) {
            if (value.isTensor()) add(value.toTensor());
            if (!value.isTensorList()) continue;
            for (const at::Tensor& tensor : value.toTensorVector()) add(tensor);
        }
        return found;
    }

    struct Inputs : at::ObserverContext {
        std::vector<const void*> storages;
    };
    static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
        auto inputs = std::make_unique<Inputs>();
        inputs->storages = storages(function.inputs());
        now_->reads(function.name(), inputs->storages);
        return inputs;
    }
    static void end(const at::RecordFunction& function, at::ObserverContext* context) {
        const auto& inputs = static_cast<Inputs*>(context)->storages;
        for (const void* storage : storages(function.outputs())) {
            // A view, or what was there already, is no new value.
            if (std::find(inputs.begin(), inputs.end(), storage) != inputs.end()) continue;
            now_->memory_[storage] = {now_->here(), {}};
        }
    }
    Access here() { return {current_, clocks_[current_][current_]}; }
    void reads(const std::string& name, const std::vector<const void*>& inputs) {
        Clock& clock = clocks_[current_];
        join(clock, host_);
        ++clock[current_];
        ++operators[current_];
        if (current_ == 0) host_[0] = clock[0];
        // The stream for copies copies to page-locked memory, or it would not run beside the
        // others.
        if (current_ == 2 && name == "aten::copy_" && !pinned_.contains(inputs.front())) {
            races.push_back("a copy to the host goes to pageable memory");
        }
        if (name == "aten::copy_" && inputs.size() == 2 && pinned_.contains(inputs[1])) {
            ++from_pinned[current_];
        }
        const bool overwrites = name.ends_with("_");  // LibTorch's mark for in place
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            Memory& memory = memory_[inputs[i]];
            if (!over(memory.written, clock)) tell(name, "reads", "wrote", memory.written);
            if (i > 0 || !overwrites) {
                memory.read.push_back(here());
                continue;
            }
            for (const Access& access : memory.read) {
                if (!over(access, clock)) tell(name, "overwrites", "reads", access);
            }
            memory = {here(), {}};
        }
    }
    void tell(const std::string& name, const char* does, const char* did, const Access& access) {
        races.push_back(name + " in stream " + std::to_string(current_) + " " + does +
                        " what stream " + std::to_string(access.stream) + " " + did +
                        " without waiting for it");
    }

    inline static thread_local RecordingDevice* now_ = nullptr;
    at::CallbackHandle callback_;
    mutable c10::StreamId current_ = 0;
    mutable c10::StreamId last_stream_ = 0;
    mutable std::map<c10::StreamId, Clock> clocks_;
    mutable Clock host_;
    mutable std::vector<std::unique_ptr<Clock>> events_;
    std::map<const void*, Memory> memory_;
    std::set<const void*> pinned_;
    std::vector<c10::Storage> kept_;
};

}  // namespace detente::toy
