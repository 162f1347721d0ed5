#include "worker/torch/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "common/invariant.h"

namespace detente {

namespace {

const char* const kRemedy =
    "; set worker.device = \"cpu\", or run where there is a GPU, with NVIDIA's driver and a "
    "LibTorch that has CUDA and its libraries";

Error no_device(const std::string& name, const std::string& text) {
    return fail(ErrorCode::not_supported, "worker.device = \"" + name + "\": " + text + kRemedy);
}

// The folder of the LibTorch this library runs with.
std::string torch_folder() {
    Dl_info found{};
    if (dladdr(reinterpret_cast<const void*>(&at::globalContext), &found) == 0) return "";
    return std::filesystem::path(found.dli_fname).parent_path().string();
}

// Opens for the process's life; the reason where it cannot.
std::string open_for_good(const std::string& library) {
    if (dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return "";
    const char* reason = dlerror();
    return reason == nullptr ? "no reason given" : reason;
}

// As far as LibTorch can: its fastest kernels differ from run to run in the last bits.
void compute_the_same_again() {
    at::Context& context = at::globalContext();
    context.setDeterministicAlgorithms(true, /*warn_only=*/true);
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
    context.setAllowTF32CuDNN(false);
}

}  // namespace

Result<Accelerator> find_accelerator(const std::string& name) {
    Accelerator found;
    try {
        found.device = c10::Device(name);
    } catch (const std::exception&) {
        return no_device(name,
                         "no device that LibTorch knows; expected \"cuda:0\" or another number");
    }
    if (found.device.type() != c10::kCUDA || !found.device.has_index()) {
        return no_device(name, "expected \"cuda:\" and a number");
    }
    if (const auto reason = open_for_good("libcuda.so.1"); !reason.empty()) {
        return no_device(name, "looked for NVIDIA's driver, libcuda.so.1: " + reason);
    }
    const std::string library = torch_folder() + "/libtorch_cuda.so";
    if (const auto reason = open_for_good(library); !reason.empty()) {
        return no_device(name, "looked for LibTorch's part for CUDA, " + library + ": " + reason);
    }
    if (!at::Context::hasCUDA()) {
        return no_device(name,
                         "LibTorch finds no CUDA: the driver is older than it needs, or LibTorch "
                         "had computed in this process before its part for CUDA was loaded");
    }
    found.streams = c10::impl::getDeviceGuardImpl(c10::kCUDA);
    const int count = found.streams->deviceCount();
    if (found.device.index() >= count) {
        return no_device(name, "LibTorch found " + std::to_string(count) +
                                   " GPUs, numbered from 0; CUDA_VISIBLE_DEVICES may hide others");
    }
    found.pinned = [](torch::IntArrayRef sizes, torch::ScalarType type) {
        return torch::empty(sizes, torch::TensorOptions().dtype(type).pinned_memory(true));
    };
    found.name = found.device.str();
    compute_the_same_again();
    return found;
}

StreamEvent::StreamEvent(const Accelerator& on, const c10::Stream& stream)
    : streams_(on.streams), device_(on.device.index()) {
    streams_->record(&event_, stream, device_, c10::EventFlag::PYTORCH_DEFAULT);
}

StreamEvent::~StreamEvent() {
    if (event_ != nullptr) streams_->destroyEvent(event_, device_);
}

StreamEvent::StreamEvent(StreamEvent&& other) noexcept
    : streams_(other.streams_),
      device_(other.device_),
      event_(std::exchange(other.event_, nullptr)) {}

void StreamEvent::hold(const c10::Stream& stream) const { streams_->block(event_, stream); }

void StreamEvent::wait() const { streams_->synchronizeEvent(event_); }

Arrival::~Arrival() {
    if (from_.empty()) return;
    try {
        done_.wait();
    } catch (const std::exception&) {
        // The device fails; whoever asks it next is told.
    }
}

const std::vector<torch::Tensor>& Arrival::wait() {
    if (!from_.empty()) done_.wait();
    from_.clear();
    return to_;
}

DeviceStreams::DeviceStreams(Accelerator accelerator, std::size_t tasks)
    : accelerator_(std::move(accelerator)),
      shared_(accelerator_.streams->getNewStream(accelerator_.device)),
      copies_(accelerator_.streams->getNewStream(accelerator_.device)) {
    // Of a priority of their own: LibTorch has 32 streams of each, and then begins again.
    for (std::size_t t = 0; t < tasks; ++t) {
        tasks_.push_back(accelerator_.streams->getNewStream(accelerator_.device, -1));
    }
}

DeviceStreams::Scope::Scope(const DeviceStreams& streams)
    : streams_(*streams.accelerator_.streams), before_(streams_.exchangeStream(streams.shared_)) {
    streams_.setDevice(streams.accelerator_.device);
}

DeviceStreams::Scope::~Scope() { streams_.exchangeStream(before_); }

DeviceStreams::Fork::Fork(const DeviceStreams* streams) : streams_(streams) {
    if (streams_ != nullptr) begin_.emplace(streams_->accelerator_, streams_->shared_);
}

void DeviceStreams::Fork::enter(TaskId task) {
    if (streams_ == nullptr) return;
    const c10::Stream& stream = streams_->tasks_.at(task.value);
    begin_->hold(stream);
    streams_->accelerator_.streams->exchangeStream(stream);
    entered_.push_back(task);
}

DeviceStreams::Fork::~Fork() {
    if (streams_ == nullptr) return;
    streams_->accelerator_.streams->exchangeStream(streams_->shared_);
    try {
        for (const TaskId task : entered_) {
            StreamEvent(streams_->accelerator_, streams_->tasks_[task.value])
                .hold(streams_->shared_);
        }
    } catch (const std::exception&) {
        // The device fails; whoever asks it next is told.
    }
}

torch::Tensor DeviceStreams::to_device(const torch::Tensor& host) const {
    // A model that reads its batches on the device itself has them there.
    if (!host.defined() || !host.device().is_cpu()) return host;
    torch::Tensor staged = accelerator_.pinned(host.sizes(), host.scalar_type());
    staged.copy_(host);
    torch::Tensor there = torch::empty(
        host.sizes(), torch::TensorOptions().dtype(host.scalar_type()).device(device()));
    there.copy_(staged, /*non_blocking=*/true);
    return there;
}

Arrival DeviceStreams::to_host(std::vector<torch::Tensor> values) const {
    const auto& streams = *accelerator_.streams;
    const c10::Stream current = streams.getStream(device());
    StreamEvent(accelerator_, current).hold(copies_);
    streams.exchangeStream(copies_);
    std::vector<torch::Tensor> host;
    try {
        for (const torch::Tensor& value : values) {
            host.push_back(value);
            if (!value.defined() || value.device() != device()) continue;
            host.back() = accelerator_.pinned(value.sizes(), value.scalar_type());
            streams.recordDataPtrOnStream(value.storage().data_ptr(), copies_);
            host.back().copy_(value, /*non_blocking=*/true);
        }
    } catch (...) {
        streams.exchangeStream(current);
        throw;
    }
    streams.exchangeStream(current);
    return {std::move(values), std::move(host), StreamEvent(accelerator_, copies_)};
}

DeviceWeights::DeviceWeights(const DeviceStreams& streams, std::vector<torch::Tensor> tensors)
    : streams_(streams), device_(std::move(tensors)), newer_(device_.size(), false) {
    const torch::NoGradGuard no_gradients;
    for (torch::Tensor& tensor : device_) {
        if (!tensor.defined()) {
            host_.emplace_back();
            continue;
        }
        host_.push_back(streams_.accelerator().pinned(tensor.sizes(), tensor.scalar_type()));
        host_.back().copy_(tensor);
        tensor.set_data(streams_.to_device(tensor));
    }
}

std::span<const float> DeviceWeights::host(std::size_t index) const {
    const torch::Tensor& value = host_.at(index);
    return {value.const_data_ptr<float>(), static_cast<std::size_t>(value.numel())};
}

void DeviceWeights::load(std::size_t index, std::size_t offset, std::span<const std::byte> values) {
    if (sending_) {
        try {
            sending_->wait();
        } catch (const std::exception&) {
            // The device fails; the next computation there says so.
        }
        sending_.reset();
    }
    torch::Tensor& value = host_.at(index);
    std::memcpy(value.data_ptr<float>() + offset, values.data(), values.size());
    newer_[index] = true;
}

void DeviceWeights::send() {
    const auto& accelerator = streams_.accelerator();
    const torch::NoGradGuard no_gradients;
    for (std::size_t k = 0; k < host_.size(); ++k) {
        if (!newer_[k]) continue;
        // Not the tensor itself: a graph that is kept would take it for another's change, where the
        // same values are back (trunk_gradient()).
        device_[k].variable_data().copy_(host_[k], /*non_blocking=*/true);
        newer_[k] = false;
        sending_.emplace(accelerator, accelerator.streams->getStream(accelerator.device));
    }
}

}  // namespace detente
