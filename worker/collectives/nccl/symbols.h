// The functions of NCCL and of CUDA's runtime that the module calls, found in the two libraries at
// run time, so that the module links neither and the tests' stand-in can take their place.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string>

#include "common/result.h"

namespace detente {

struct NcclSymbols {
    // Of CUDA's runtime.
    cudaError_t (*device_count)(int*) = nullptr;
    cudaError_t (*set_device)(int) = nullptr;
    cudaError_t (*allocate)(void**, size_t) = nullptr;
    cudaError_t (*release)(void*) = nullptr;
    cudaError_t (*allocate_pinned)(void**, size_t, unsigned int) = nullptr;
    cudaError_t (*release_pinned)(void*) = nullptr;
    cudaError_t (*create_stream)(cudaStream_t*, unsigned int) = nullptr;
    cudaError_t (*destroy_stream)(cudaStream_t) = nullptr;
    cudaError_t (*copy)(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) = nullptr;
    cudaError_t (*fill)(void*, int, size_t, cudaStream_t) = nullptr;
    cudaError_t (*create_event)(cudaEvent_t*, unsigned int) = nullptr;
    cudaError_t (*record_event)(cudaEvent_t, cudaStream_t) = nullptr;
    cudaError_t (*query_event)(cudaEvent_t) = nullptr;
    cudaError_t (*destroy_event)(cudaEvent_t) = nullptr;
    const char* (*cuda_text)(cudaError_t) = nullptr;
    // Of NCCL.
    ncclResult_t (*version)(int*) = nullptr;
    ncclResult_t (*unique_id)(ncclUniqueId*) = nullptr;
    ncclResult_t (*join)(ncclComm_t*, int, ncclUniqueId, int, ncclConfig_t*) = nullptr;
    ncclResult_t (*async_error)(ncclComm_t, ncclResult_t*) = nullptr;
    ncclResult_t (*create_scaled_sum)(ncclRedOp_t*, void*, ncclDataType_t, ncclScalarResidence_t,
                                      ncclComm_t) = nullptr;
    ncclResult_t (*destroy_operation)(ncclRedOp_t, ncclComm_t) = nullptr;
    ncclResult_t (*all_reduce)(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                               cudaStream_t) = nullptr;
    ncclResult_t (*abort)(ncclComm_t) = nullptr;
    const char* (*nccl_text)(ncclResult_t) = nullptr;
    const char* (*last_error)(ncclComm_t) = nullptr;
};

// Opens the libraries by name or path. not_supported: one is missing, lacks a function, or is too
// old; the text says what was looked for, and where.
Result<NcclSymbols> find_nccl_symbols(const std::string& nccl_library,
                                      const std::string& cuda_library);

}  // namespace detente
