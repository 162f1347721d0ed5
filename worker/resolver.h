// Turns the gradients of a step into the order to combine them: asks the method for weights, group
// by group of conflict.scope, and clips. Keeps the method's state, which advances with each step.
//
// Reuse. Where conflict.every = k > 1, a group's weights serve up to k steps, as long as
// ‖G − G_then‖ ≤ drift · ‖G_then‖ in Frobenius norms; a method's state advances only when it is
// asked. It is by group: one may have drifted while others have not.
//
// Tasks that own nothing of a group are not put before the method, which sees the group's members
// as if there were no others (common/conflict/members.h). Their weight is 1, as that of blocks of
// one task; what is remembered has a place for every task all the same.
//
// Copyable: a copy goes on by itself. Thread: its owner's; nothing in it takes long.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
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
    // Whether every group's weights of the last resolve() were an earlier step's.
    bool reused() const { return reused_; }
    // A group of the last resolve() for which the method did not find what its paper asks for: its
    // weights are the documented choice.
    struct Undecided {
        AggregatorStatus status = AggregatorStatus::ok;  // never ok
        std::size_t group = 0;
        std::size_t groups = 1;
    };
    // The first group that is degenerate, or else the first whose gradients are all zero.
    const std::optional<Undecided>& undecided() const { return undecided_; }

    // Whether anything is: not where the method remembers nothing and every step is resolved anew.
    bool remembers() const;
    // What is remembered, for a checkpoint. Vectors per task and coordinate (moco and the like) are
    // not in it.
    MethodState saved() const;
    // Goes on from there; from the beginning, if the first step has other numbers of groups.
    // bad_checkpoint: of another method, of several groups where there is one, or of a length that
    // does not fit.
    Result<void> restore(const MethodState& state);

  private:
    // A solution and what it was found for.
    struct Solved {
        std::vector<double> weights;
        std::vector<double> gramian;  // its entries
        std::uint32_t steps = 0;      // it has served; 0 = there is none
    };
    Resolver(const Job& job, std::size_t tasks, std::shared_ptr<const Aggregator> aggregator)
        : config_(job.aggregator),
          scope_(job.conflict_scope),
          space_(job.conflict_space),
          clip_norm_(job.clip_norm),
          every_(job.conflict_every),
          drift_(job.conflict_drift),
          tasks_(tasks),
          aggregator_(std::move(aggregator)) {}
    // The method for some of the tasks, and where in a state of all the values of theirs stand.
    struct ForMembers {
        std::shared_ptr<const Aggregator> method;
        std::vector<std::size_t> places;
    };
    Result<std::vector<std::vector<double>>> weights_of(const GradientOutcome& outcome,
                                                        std::uint64_t key);
    Result<const ForMembers*> method_for(TaskSet members);
    Result<void> begin_states(const GradientOutcome& outcome, std::size_t groups);
    // One weight per task of the job.
    Result<AggregatorOutput> solve(const AggregatorInput& input, TaskSet members,
                                   AggregatorState& state);
    bool still_serves(const Solved& solved, const Gramian& gramian) const;
    double clip_factor(const GradientOutcome& outcome,
                       const std::vector<std::vector<double>>& weights) const;

    AggregatorConfig config_;
    ConflictScope scope_;
    ConflictSpace space_;
    double clip_norm_;
    std::uint32_t every_;
    double drift_;
    std::size_t tasks_;
    std::shared_ptr<const Aggregator> aggregator_;
    std::map<TaskSet, ForMembers> for_members_;  // where they are not all tasks
    std::vector<AggregatorState> states_;        // by group
    std::vector<Solved> solved_;                 // by group, where every_ > 1
    bool reused_ = false;
    std::optional<Undecided> undecided_;
};

}  // namespace detente
