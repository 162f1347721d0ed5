// What staleness methods with a half in the worker (dana_slim, easgd) keep and do there: rewrites
// pulled weights before a gradient is computed, and the combined gradient before it is pushed.
//
// Thread: the compute thread. The vectors are the worker's own: one that starts again begins anew.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/config.h"
#include "common/messages.h"
#include "common/partition/plan.h"
#include "common/staleness/policy.h"

namespace detente {

class WorkerHalves {
  public:
    // nullptr: no policy of the job has a half in the worker. bad_job: one that cannot be made.
    static Result<std::unique_ptr<WorkerHalves>> create(const Job& job, const Plan& plan);

    // The weights to compute at; valid until the next call.
    std::span<const std::byte> before_compute(const WeightBlock& pulled);
    void before_push(BlockId id, std::span<float> gradient);

  private:
    struct Place {
        const WorkerHalf* half = nullptr;
        double learning_rate = 0;
        std::uint64_t computed = 0;
        std::vector<float> pulled;
        std::vector<std::vector<float>> vectors;
    };
    WorkerHalves() = default;
    WorkerHalf::Place seen_by_half(Place& place) const;

    std::vector<std::unique_ptr<const Policy>> policies_;
    std::uint32_t workers_ = 1;
    std::vector<Place> places_;  // by block
    std::vector<float> rewritten_;
};

}  // namespace detente
