// The vectors a staleness policy keeps for one block: some per block, some per worker, and copies
// of the weights workers were handed. Zero at first.
//
// Not in checkpoints: after a restore a policy that keeps vectors begins anew.
//
// Owner: the shard's loop. Bounded: vectors per worker that pulls from this shard, and at most
// kMostCopies copies of the weights for each.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <vector>

#include "common/ids.h"
#include "common/staleness/policy.h"

namespace detente {

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
    bool knows(WorkerId worker) const { return workers_.contains(worker); }
    void forget(WorkerId worker);

  private:
    struct Copy {
        Version version;
        std::vector<float> weights;
    };
    struct Worker {
        std::vector<std::vector<float>> vectors;
        std::deque<Copy> copies;
    };
    static void grow(std::vector<std::vector<float>>& vectors, std::uint32_t count,
                     std::size_t elements);

    std::vector<std::vector<float>> block_;
    std::map<WorkerId, Worker> workers_;
};

}  // namespace detente
