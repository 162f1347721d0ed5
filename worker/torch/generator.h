// LibTorch draws dropout and initial weights from one generator per process. An engine is one
// compute thread, so it seeds that generator before everything that may draw: what is drawn is
// then a function of the key alone. Two engines that draw and compute at once in one process would
// break that (Engine::draws_from_shared_generator tells): they take turns, or live in processes of
// their own.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <cstdint>
#include <mutex>

namespace detente {

inline void seed_default_generator(std::uint64_t key) {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(key);
}

// The device's own too, which what is computed there draws from.
inline void seed_default_generator(std::uint64_t key, const c10::Device& device) {
    seed_default_generator(key);
    if (device.is_cpu()) return;
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(key);
}

}  // namespace detente
