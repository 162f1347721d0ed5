#include "launch/gpu.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <memory>

#include "launch/roles.h"

namespace detente {

namespace {

constexpr const char* kCuda = "cuda";

// Of the driver's interface, which has been the same since CUDA 6.
using DriverInitialise = int (*)(unsigned int);
using DriverCount = int (*)(int*);
using DriverText = int (*)(int, const char**);

template <class Function>
Function function_of(void* library, const char* name) {
    return reinterpret_cast<Function>(::dlsym(library, name));
}

std::string text_of(void* library, int code) {
    const char* text = nullptr;
    const auto ask = function_of<DriverText>(library, "cuGetErrorString");
    if (ask == nullptr || ask(code, &text) != 0 || text == nullptr) {
        return fmt::format("error {}", code);
    }
    return fmt::format("error {}, {}", code, text);
}

std::string visible() {
    const char* only = std::getenv("CUDA_VISIBLE_DEVICES");  // empty: hides all
    return only == nullptr ? "" : fmt::format(" (CUDA_VISIBLE_DEVICES=\"{}\")", only);
}

}  // namespace

Result<int> count_gpus(const std::string& driver) {
    struct Close {
        void operator()(void* library) const { ::dlclose(library); }
    };
    const std::unique_ptr<void, Close> library(
        // Not unloaded again: it is not made to be begun twice in a process.
        ::dlopen(driver.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
    if (library == nullptr) {
        const char* reason = ::dlerror();
        return fail(ErrorCode::not_supported,
                    fmt::format("looked for NVIDIA's driver, {}: {}", driver,
                                reason == nullptr ? "no reason given" : reason));
    }
    const auto initialise = function_of<DriverInitialise>(library.get(), "cuInit");
    const auto count_devices = function_of<DriverCount>(library.get(), "cuDeviceGetCount");
    if (initialise == nullptr || count_devices == nullptr) {
        return fail(ErrorCode::not_supported,
                    fmt::format("looked for NVIDIA's driver: {} has no cuInit or no "
                                "cuDeviceGetCount",
                                driver));
    }
    int count = 0;
    int code = initialise(0);
    if (code == 0) code = count_devices(&count);
    if (code != 0) {
        return fail(ErrorCode::not_supported,
                    fmt::format("asked NVIDIA's driver, {}, for its GPUs: {}{}", driver,
                                text_of(library.get(), code), visible()));
    }
    if (count < 1) {
        return fail(ErrorCode::not_supported,
                    fmt::format("asked NVIDIA's driver, {}, for its GPUs: there are none{}", driver,
                                visible()));
    }
    return count;
}

Result<int> gpu_number(const std::string& device) {
    if (device == kCuda) return -1;
    const std::string numbered = std::string(kCuda) + ":";
    if (device.starts_with(numbered)) {
        int number = -1;
        const char* begin = device.data() + numbered.size();
        const char* end = device.data() + device.size();
        const auto [stop, error] = std::from_chars(begin, end, number);
        if (error == std::errc{} && stop == end && number >= 0) return number;
    }
    return fail(ErrorCode::bad_job,
                fmt::format("must be \"cpu\", \"cuda\" or \"cuda:N\"; found \"{}\"", device));
}

Result<std::string> device_of(const Job& job, std::uint32_t place, const std::string& driver) {
    if (job.device == "cpu") return job.device;
    const auto number = gpu_number(job.device);
    if (number.has_error()) {
        return fail(number.error().code, "worker.device " + number.error().text);
    }
    const auto count = count_gpus(driver);
    const std::string where = fmt::format("worker.device = \"{}\" on {}", job.device, this_host());
    if (count.has_error()) {
        return fail(count.error().code,
                    fmt::format("{}: no GPU can be used: {}; set worker.device = \"cpu\", or start "
                                "the workers where there is a GPU",
                                where, count.error().text));
    }
    if (*number >= *count) {
        return fail(
            ErrorCode::not_supported,
            fmt::format("{}: NVIDIA's driver finds {} there, numbered from 0{}; set "
                        "worker.device = \"cuda\" to share them out",
                        where, *count == 1 ? "1 GPU" : fmt::format("{} GPUs", *count), visible()));
    }
    const auto chosen = *number >= 0 ? static_cast<std::uint32_t>(*number)
                                     : place % static_cast<std::uint32_t>(*count);
    return fmt::format("{}:{}", kCuda, chosen);
}

}  // namespace detente
