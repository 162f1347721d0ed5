// How torn a worker's pulls are: shards answer one by one, so that the weights it computes at may
// be of several moments. Told from the versions that come with them, in which no update is missing
// on one shard and there on another:
//   step scope   every update is of all blocks: weights of one moment have one version;
//   block scope  an update is of all blocks of a task: those with the same owners count the same
//                updates. Where a policy may reject for one block what it applies for another, or
//                shards were restored (each at its own moment), they do not, and nothing is told.
//
// Owner: the worker's loop.
#pragma once

#include <cstdint>
#include <vector>

#include "common/config.h"
#include "common/messages.h"
#include "common/partition/plan.h"

namespace detente {

class PullSpread {
  public:
    explicit PullSpread(const Job& job);

    // A gradient is computed at these.
    void note(const std::vector<WeightBlock>& weights, const Plan& plan);
    // As "pull.…"; nothing where nothing is told.
    void report(Status& status) const;

  private:
    bool steps_ = false;  // the lead shard decides
    bool told_ = false;
    std::uint64_t pulls_ = 0;  // that could be told of
    std::uint64_t torn_ = 0;
    std::uint64_t sum_ = 0;  // of differences of versions
    std::uint64_t largest_ = 0;
};

}  // namespace detente
