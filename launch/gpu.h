// Which GPU a worker computes on. Asked of NVIDIA's driver itself, so that the program links
// nothing of CUDA, and a host without one is told at once.
//
// Thread: any; asking takes the time of cuInit.
#pragma once

#include <cstdint>
#include <string>

#include "common/config.h"
#include "common/result.h"

namespace detente {

inline constexpr const char* kGpuDriver = "libcuda.so.1";

// At least one. Error: not_supported, with what was looked for and what came of it.
Result<int> count_gpus(const std::string& driver = kGpuDriver);

// The device, as LibTorch calls it, of the worker that is the `place`-th of its host: "cpu" or
// "cuda:1". For worker.device = "cuda" workers take the host's GPUs by turns. Error: not_supported;
// the text names the host, what was looked for, and what to do.
Result<std::string> device_of(const Job& job, std::uint32_t place,
                              const std::string& driver = kGpuDriver);

// "cuda:1" → 1; "cuda" → -1. Error: bad_job, for what is neither of these nor "cpu".
Result<int> gpu_number(const std::string& device);

}  // namespace detente
