// How torn a worker's pulls are: shards answer one by one, so that the weights it computes at may
// be of several moments. Told under step scope, where every update is of all blocks: weights of one
// moment have one version. Under block scope versions do not tell: a block may have been rejected
// what another was applied, or miss a part of a lost worker's, and differ for good.
//
// Owner: the worker's loop.
#pragma once

#include <cstdint>
#include <vector>

#include "common/config.h"
#include "common/messages.h"
#include "common/partition/plan.h"
#include "common/staleness/policy.h"

namespace detente {

class PullSpread {
  public:
    explicit PullSpread(const Job& job) : told_(decides_steps(job)) {}

    // A gradient is computed at these.
    void note(const std::vector<WeightBlock>& weights, const Plan& plan);
    // As "pull.…"; nothing where nothing is told.
    void report(Status& status) const;

  private:
    bool told_;
    std::uint64_t pulls_ = 0;
    std::uint64_t torn_ = 0;
    std::uint64_t sum_ = 0;  // of differences of versions
    std::uint64_t largest_ = 0;
};

}  // namespace detente
