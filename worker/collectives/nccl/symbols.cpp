#include "worker/collectives/nccl/symbols.h"

#include <dlfcn.h>

namespace detente {

namespace {

// Communicators that do not block, and are aborted from outside, are older than this; scaled sums
// and configurations are not.
constexpr int kOldestNccl = NCCL_VERSION(2, 18, 1);

class Library {
  public:
    Library(std::string name, const char* key, const char* package)
        : name_(std::move(name)), key_(key), package_(package) {
        dlerror();
        opened_ = dlopen(name_.c_str(), RTLD_LOCAL | RTLD_NOW);
        if (opened_ != nullptr) return;
        const char* text = dlerror();
        problem_ = std::string("cannot be loaded: ") + (text ? text : "no reason given");
    }

    template <class Function>
    void find(Function& function, const char* symbol) {
        if (opened_ == nullptr || !problem_.empty()) return;
        function = reinterpret_cast<Function>(dlsym(opened_, symbol));
        if (function == nullptr) problem_ = std::string("has no ") + symbol;
    }

    bool is_usable() const { return problem_.empty(); }
    Error error() const {
        return fail(ErrorCode::not_supported,
                    "collectives over NCCL need " + package_ + ", looked for as " + name_ +
                        " on the system's library path (LD_LIBRARY_PATH included): " + problem_ +
                        ". Install it, or name it with " + key_ +
                        "; without a GPU use shared_memory");
    }

  private:
    std::string name_;
    std::string key_;  // of the job
    std::string package_;
    void* opened_ = nullptr;
    std::string problem_;
};

}  // namespace

Result<NcclSymbols> find_nccl_symbols(const std::string& nccl_library,
                                      const std::string& cuda_library) {
    NcclSymbols symbols;
    Library cuda(cuda_library, "sync.cuda_library", "CUDA's runtime");
    cuda.find(symbols.device_count, "cudaGetDeviceCount");
    cuda.find(symbols.set_device, "cudaSetDevice");
    cuda.find(symbols.allocate, "cudaMalloc");
    cuda.find(symbols.release, "cudaFree");
    cuda.find(symbols.allocate_pinned, "cudaHostAlloc");
    cuda.find(symbols.release_pinned, "cudaFreeHost");
    cuda.find(symbols.create_stream, "cudaStreamCreateWithFlags");
    cuda.find(symbols.destroy_stream, "cudaStreamDestroy");
    cuda.find(symbols.copy, "cudaMemcpyAsync");
    cuda.find(symbols.fill, "cudaMemsetAsync");
    cuda.find(symbols.create_event, "cudaEventCreateWithFlags");
    cuda.find(symbols.record_event, "cudaEventRecord");
    cuda.find(symbols.query_event, "cudaEventQuery");
    cuda.find(symbols.destroy_event, "cudaEventDestroy");
    cuda.find(symbols.cuda_text, "cudaGetErrorString");
    if (!cuda.is_usable()) return cuda.error();
    Library nccl(nccl_library, "sync.nccl_library", "NCCL");
    nccl.find(symbols.version, "ncclGetVersion");
    nccl.find(symbols.unique_id, "ncclGetUniqueId");
    nccl.find(symbols.join, "ncclCommInitRankConfig");
    nccl.find(symbols.async_error, "ncclCommGetAsyncError");
    nccl.find(symbols.create_scaled_sum, "ncclRedOpCreatePreMulSum");
    nccl.find(symbols.destroy_operation, "ncclRedOpDestroy");
    nccl.find(symbols.all_reduce, "ncclAllReduce");
    nccl.find(symbols.abort, "ncclCommAbort");
    nccl.find(symbols.nccl_text, "ncclGetErrorString");
    nccl.find(symbols.last_error, "ncclGetLastError");
    if (!nccl.is_usable()) return nccl.error();
    int version = 0;
    if (symbols.version(&version) != ncclSuccess || version < kOldestNccl) {
        return fail(ErrorCode::not_supported,
                    nccl_library + " is NCCL of version code " + std::to_string(version) +
                        ", needed is " + std::to_string(kOldestNccl) + " (2.18.1) or newer");
    }
    return symbols;
}

}  // namespace detente
