// The vectors a staleness policy keeps for one block: some per block, some per worker, and copies
// of the weights workers were handed. Zero at first.
//
// In checkpoints (save, restore), but for the copies: what they would correct is of the epoch
// before, and refused. A vector that a checkpoint shares is copied before it is next written to, so
// that saving costs nothing but what changes while the disk is at it.
//
// Owner: the shard's loop. Bounded: vectors per worker that pulls from this shard, and at most
// kMostCopies copies of the weights for each.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "common/ids.h"
#include "common/payload.h"
#include "common/staleness/policy.h"

namespace detente {

// All of one block, but for the copies; each as long as the block.
struct SavedVectors {
    std::vector<Payload> block;
    std::map<WorkerId, std::vector<Payload>> workers;
};

class PolicyVectors {
  public:
    static constexpr std::size_t kMostCopies = 4;

    // Keeps a copy of the weights of this version for the worker.
    void keep_copy(WorkerId worker, Version version, std::span<const float> weights);
    // The copy of that version; empty if there is none.
    std::span<const float> copy_of(WorkerId worker, Version version) const;
    // What the policy works on. Spans stay valid until the next call on this object.
    BlockVectors of(const PolicyNeeds& needs, WorkerId worker, Version base,
                    std::span<const float> weights);
    bool has_block_vectors() const { return !block_.empty(); }
    bool knows(WorkerId worker) const { return workers_.contains(worker); }
    void forget(WorkerId worker);
    // The same, where the policy first takes what it keeps of the worker out of the block's own.
    // `version` and `weights`: the block's now.
    void forget(const Policy& policy, WorkerId worker, Version version,
                std::span<const float> weights);

    SavedVectors save() const;
    // Requires: each of whole floats.
    void restore(const SavedVectors& saved);

  private:
    using Vector = std::shared_ptr<std::vector<float>>;
    struct Copy {
        Version version;
        std::vector<float> weights;
    };
    struct Worker {
        std::vector<Vector> vectors;
        std::deque<Copy> copies;
    };
    static std::vector<std::span<float>> writable(std::vector<Vector>& vectors, std::uint32_t count,
                                                  std::size_t elements);

    std::vector<Vector> block_;
    std::map<WorkerId, Worker> workers_;
};

}  // namespace detente
