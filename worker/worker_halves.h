// What staleness methods with a half in the worker (dana_slim, easgd) keep and do there: rewrites
// pulled weights before a gradient is computed, and the combined gradient before it is pushed.
//
// Thread: the compute thread. The vectors are the worker's own; its file of a checkpoint has them
// (worker/kept_vectors.h). One that starts again while the run goes on begins anew.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/messages.h"
#include "common/partition/plan.h"
#include "common/staleness/policy.h"

namespace detente {

// By block id: what a half kept, and of which policy; nothing where it has computed nothing yet.
struct HalfVectors {
    struct OfBlock {
        std::string policy;
        std::uint64_t computed = 0;
        std::vector<std::shared_ptr<const std::vector<float>>> vectors;
    };
    std::vector<OfBlock> blocks;
};

class WorkerHalves {
  public:
    // nullptr: no policy of the job has a half in the worker. bad_job: one that cannot be made.
    static Result<std::unique_ptr<WorkerHalves>> create(const Job& job, const Plan& plan);

    // The weights to compute at; valid until the next call.
    std::span<const std::byte> before_compute(const WeightBlock& pulled);
    void before_push(BlockId id, std::span<float> gradient);

    // As they are now, and stay: a vector is copied before it changes next. null: none yet.
    std::shared_ptr<const HalfVectors> kept();
    // Goes on from there, block by block, whatever the other workers do; null: from nothing. The
    // text says what begins anew and why; empty: nothing does. Requires: of this plan's blocks;
    // nothing computed yet.
    std::string restore(const HalfVectors* kept);

  private:
    struct Place {
        const WorkerHalf* half = nullptr;
        std::string policy;
        double learning_rate = 0;
        std::uint64_t computed = 0;
        std::vector<float> pulled;
        std::vector<std::shared_ptr<std::vector<float>>> vectors;
        bool shared = false;  // the vectors, with a checkpoint
    };
    WorkerHalves() = default;
    // The vectors may be changed there.
    WorkerHalf::Place seen_by_half(Place& place) const;

    std::vector<std::unique_ptr<const Policy>> policies_;
    std::uint32_t workers_ = 1;
    std::vector<Place> places_;  // by block
    std::vector<float> rewritten_;
};

}  // namespace detente
