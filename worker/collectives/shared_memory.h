// Processes of one host average in memory they share: gradients are read where their members wrote
// them, and the mean is written once, for all to read. Every member takes pieces of the sum as
// long as there are any, so a slow one holds nobody up, and who computes a piece moves no bits.
//
// Waiting sleeps on an eventfd (a few microseconds of spinning first, while keys are in flight). A
// member that is killed hangs up its socket, which breaks the group at once; one that is stopped is
// missed at the deadline. A group's memory is its own: after it is broken a late member may still
// write there, and nobody reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "worker/collectives/collective.h"

namespace detente {

struct SharedMemoryOptions {
    // Tells apart what runs on this host at once: the run's id, say. The same at all members.
    std::string run;
    // Room per member for its gradients in flight; the first member's also holds the means, until
    // all have dropped them. Memory is taken only as it is used. The same at all members.
    std::size_t arena_bytes = 0;
    // What a member brings to a round, its means as much again at the first; 0: not known. A host
    // with less memory than that takes is refused.
    std::size_t round_bytes = 0;
};

// Room for rounds to which a member brings so many bytes. At the first member it holds its own
// gradients and the means, and a member may be a round ahead of one that still holds means.
inline std::size_t arena_for(std::size_t round_bytes) { return 2 * (2 * round_bytes); }

// not_supported: a round would take more than the host's memory; the text says what of.
Result<void> check_memory(const Group& group, const SharedMemoryOptions& options,
                          std::uint64_t host_bytes);
std::uint64_t memory_of_host();

class SharedMemoryBackend final : public CollectiveBackend {
  public:
    explicit SharedMemoryBackend(SharedMemoryOptions options) : options_(std::move(options)) {}
    const char* name() const override { return "shared_memory"; }
    Result<std::unique_ptr<Collective>> form(const Group& group, WorkerId self,
                                             Nanos deadline) override;

  private:
    const SharedMemoryOptions options_;
    GroupEpoch last_;
};

}  // namespace detente
