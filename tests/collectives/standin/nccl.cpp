// NCCL's C interface among the processes or threads of one host, which really sums, in memory they
// share. Communicators do not block: joining and calls come to their ends in the background.
//
// Told by the environment, it fails: DETENTE_STANDIN_FAULT = "WHAT:RANK:NTH" makes the RANK-th
// member's NTH all-reduce (from 1) of its process's first communicator
//   hang  and never end, until the communicator is aborted
//   fail  come to an asynchronous error
//   lose  be the last thing its process does (SIGKILL), with the sum half done
// "hang_join:RANK:0" makes joining hang, and "no_join:0:0" makes it fail, for all and always.
//
// As NCCL does, it refuses two ranks of one communicator on one device (all are of one host).
#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/collectives/standin/stream.h"

namespace {

using detente::standin::bytes_at;
using detente::standin::Stream;

constexpr int kMostRanks = 16;
constexpr std::size_t kChunkFloats = 1U << 16U;

// All ranks map this; zero at first.
struct Shared {
    std::atomic<std::uint32_t> attached;
    struct alignas(64) Rank {
        std::atomic<std::uint64_t> written;  // chunks so far
        std::atomic<std::uint64_t> summed;
        std::atomic<int> device;
    };
    Rank ranks[kMostRanks];
    float chunks[kMostRanks][kChunkFloats];
};

struct Fault {
    std::string what;
    int rank = -1;
    int nth = -1;
};
Fault fault_from_environment() {
    const char* text = std::getenv("DETENTE_STANDIN_FAULT");
    Fault fault;
    char what[32] = {};
    if (text != nullptr && std::sscanf(text, "%31[^:]:%d:%d", what, &fault.rank, &fault.nth) == 3) {
        fault.what = what;
    }
    return fault;
}

std::atomic<int> communicators{0};

void rest() { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

// What the background threads hold, so that an aborted communicator may be gone before they are.
struct State {
    ~State() {
        if (shared != nullptr) ::munmap(shared, sizeof(Shared));
    }
    Shared* shared = nullptr;
    std::string name;
    int ranks = 0;
    int rank = 0;
    int device = 0;
    Fault fault;
    std::atomic<bool> aborted{false};
    std::atomic<int> result{ncclInProgress};
    std::atomic<int> calls_underway{0};
    std::uint64_t chunks = 0;  // the stream thread's
    int reductions = 0;        // calls so far
    std::vector<float> scales;
};

// Those on a device of their own find that the others are gone.
ncclResult_t result_of_joining(const State& state) {
    ncclResult_t result = ncclSuccess;
    for (int i = 0; i < state.ranks; ++i) {
        for (int j = 0; j < i; ++j) {
            if (state.shared->ranks[i].device.load() != state.shared->ranks[j].device.load()) {
                continue;
            }
            if (i == state.rank || j == state.rank) return ncclInvalidUsage;
            result = ncclRemoteError;
        }
    }
    return result;
}

void join_all(const std::shared_ptr<State>& state) {
    if (state->fault.what == "hang_join" && state->fault.rank == state->rank) return;
    state->shared->ranks[state->rank].device.store(state->device);
    state->shared->attached.fetch_add(1);
    while (state->shared->attached.load() < static_cast<std::uint32_t>(state->ranks)) {
        if (state->aborted.load()) return;
        rest();
    }
    ::shm_unlink(state->name.c_str());  // by whoever is last to see all; the others find it gone
    state->result.store(result_of_joining(*state));
}

// Until all ranks have done so many chunks of something; false if the communicator is aborted.
template <class Counter>
bool await_all(State& state, std::uint64_t chunks, Counter counter) {
    for (int i = 0; i < state.ranks; ++i) {
        while (counter(state.shared->ranks[i]).load() < chunks) {
            if (state.aborted.load()) return false;
            rest();
        }
    }
    return true;
}

bool sum_chunk(State& state, float* values, std::size_t count, float scale, bool dies_here) {
    Shared& shared = *state.shared;
    float* own = shared.chunks[state.rank];
    for (std::size_t i = 0; i < count; ++i) own[i] = scale * values[i];
    const std::uint64_t chunk = ++state.chunks;
    if (dies_here) ::raise(SIGKILL);
    shared.ranks[state.rank].written.store(chunk);
    if (!await_all(
            state, chunk, [](Shared::Rank & r) -> auto& { return r.written; }))
        return false;
    for (std::size_t i = 0; i < count; ++i) {
        float sum = 0;
        for (int r = 0; r < state.ranks; ++r) sum += shared.chunks[r][i];
        values[i] = sum;
    }
    shared.ranks[state.rank].summed.store(chunk);
    return await_all(
        state, chunk, [](Shared::Rank & r) -> auto& { return r.summed; });
}

void all_reduce(State& state, float* values, std::size_t count, float scale, int number) {
    const bool is_faulty = state.fault.rank == state.rank && state.fault.nth == number;
    if (is_faulty && state.fault.what == "fail") state.result.store(ncclUnhandledCudaError);
    if (is_faulty && (state.fault.what == "hang" || state.fault.what == "fail")) {
        while (!state.aborted.load()) rest();
        return;
    }
    for (std::size_t from = 0; from < count; from += kChunkFloats) {
        const std::size_t chunk = std::min(kChunkFloats, count - from);
        const bool dies = is_faulty && state.fault.what == "lose";
        if (!sum_chunk(state, values + from, chunk, scale, dies)) return;
    }
}

}  // namespace

struct ncclComm {
    std::shared_ptr<State> state = std::make_shared<State>();
};

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    static std::atomic<int> count{0};
    std::memset(id, 0, sizeof *id);
    std::snprintf(id->internal, sizeof id->internal, "/detente-standin-%d-%d",
                  static_cast<int>(::getpid()), ++count);
    const int file = ::shm_open(id->internal, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file < 0 || ::ftruncate(file, sizeof(Shared)) != 0) return ncclSystemError;
    ::close(file);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
    if (config->blocking != 0 || config->magic != 0xcafebeef) return ncclInvalidArgument;
    if (ranks > kMostRanks || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    if (fault_from_environment().what == "no_join") return ncclSystemError;
    const int file = ::shm_open(id.internal, O_RDWR, 0600);
    if (file < 0) return ncclSystemError;
    void* mapped = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    ::close(file);
    if (mapped == MAP_FAILED) return ncclSystemError;
    auto* made = new ncclComm;
    State& state = *made->state;
    state.shared = static_cast<Shared*>(mapped);
    state.name = id.internal;
    state.ranks = ranks;
    state.rank = rank;
    state.device = detente::standin::current_device();
    if (++communicators == 1) state.fault = fault_from_environment();
    *comm = made;
    std::thread([shared = made->state] { join_all(shared); }).detach();
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
    const auto result = static_cast<ncclResult_t>(comm->state->result.load());
    *error =
        result == ncclSuccess && comm->state->calls_underway.load() > 0 ? ncclInProgress : result;
    return ncclSuccess;
}

ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t* operation, void* scalar, ncclDataType_t type,
                                      ncclScalarResidence_t residence, ncclComm_t comm) {
    if (type != ncclFloat32 || residence != ncclScalarHostImmediate) return ncclInvalidArgument;
    float scale = 0;
    std::memcpy(&scale, scalar, sizeof scale);
    comm->state->scales.push_back(scale);
    *operation = static_cast<ncclRedOp_t>(ncclNumOps + comm->state->scales.size() - 1);
    return ncclSuccess;
}
ncclResult_t ncclRedOpDestroy(ncclRedOp_t operation, ncclComm_t) {
    return operation >= ncclNumOps ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
    State& state = *comm->state;
    const std::size_t index = static_cast<std::size_t>(operation) - ncclNumOps;
    if (state.calls_underway.load() > 0) return ncclInvalidUsage;  // the one before it goes first
    if (from != to || type != ncclFloat32 || index >= state.scales.size()) {
        return ncclInvalidArgument;
    }
    const int number = ++state.reductions;
    ++state.calls_underway;
    reinterpret_cast<Stream*>(stream)->add(
        [shared = comm->state, to, count, scale = state.scales[index], number] {
            --shared->calls_underway;
            all_reduce(*shared, static_cast<float*>(bytes_at(to)), count, scale, number);
        });
    return ncclInProgress;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    comm->state->aborted.store(true);
    ::shm_unlink(comm->state->name.c_str());  // gone already, unless joining hung
    delete comm;
    return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t code) {
    return code == ncclUnhandledCudaError ? "unhandled cuda error" : "the stand-in's error";
}
const char* ncclGetLastError(ncclComm_t) { return "as the stand-in was told"; }

}  // extern "C"
