// Turns the gradients of a step into the order to combine them: asks the method for weights, group
// by group of conflict.scope, and clips. Keeps the method's state, which advances with each step.
//
// Copyable: a copy goes on by itself. Thread: its owner's; nothing in it takes long.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/config.h"
#include "common/conflict/aggregator.h"
#include "common/result.h"
#include "common/work.h"

namespace detente {

class Resolver {
  public:
    // bad_job: a method that cannot be made, or is not meant for so many tasks.
    static Result<Resolver> create(const Job& job, std::size_t tasks);

    // What a gradient is to be computed for: the method's needs are the computation's.
    void prepare(GradientWork& work) const;
    // All but the layout. `key` is a function of (seed, worker, step). not_finite: NaN or Inf in a
    // loss or a product, naming the task; the state is then as it was.
    Result<CombineWork> resolve(GradientOutcome&& outcome, std::uint64_t key);
    const Aggregator& aggregator() const { return *aggregator_; }

  private:
    Resolver(const Job& job, std::size_t tasks, std::shared_ptr<const Aggregator> aggregator)
        : scope_(job.conflict_scope),
          space_(job.conflict_space),
          clip_norm_(job.clip_norm),
          tasks_(tasks),
          aggregator_(std::move(aggregator)) {}
    Result<std::vector<std::vector<double>>> weights_of(const GradientOutcome& outcome,
                                                        std::uint64_t key);
    double clip_factor(const GradientOutcome& outcome,
                       const std::vector<std::vector<double>>& weights) const;

    ConflictScope scope_;
    ConflictSpace space_;
    double clip_norm_;
    std::size_t tasks_;
    std::shared_ptr<const Aggregator> aggregator_;
    std::vector<AggregatorState> states_;  // by group
};

}  // namespace detente
