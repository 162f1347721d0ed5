// Which worker computes which tasks, where a job splits its tasks over workers
// (worker.split_tasks). There is no central decision: whoever knows the members, lead shard,
// workers or `detente plan`, computes the same placement.
//
// Rendezvous hashing (Thaler & Ravishankar 1998, highest random weight): each pair of a task's name
// and a worker has a number, and the pairs are taken from the highest down, as far as loads stay
// even. With T tasks and W workers:
//   T ≥ W: each task has one worker, a worker ⌊T/W⌋ or ⌈T/W⌉ tasks;
//   T < W: each worker has one task, a task ⌊W/T⌋ or ⌈W/T⌉ workers.
// Who leaves moves what was placed on it, and little else: what the even loads ask for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/partition/plan.h"

namespace detente {

// Tasks that own a block which is trained: others have nothing to be computed for.
TaskSet trained_tasks(const Plan& plan);

// The tasks of every member. `names` by TaskId; `tasks` are those to be placed. The order of
// `members` does not matter; one that is there twice counts once.
std::map<WorkerId, TaskSet> place_tasks(const std::vector<std::string>& names, TaskSet tasks,
                                        const std::vector<WorkerId>& members);

// The placement of one job, remembered: members seldom change, and ten thousand workers ask at
// every answer to a lease. The workers of a process share one.
//
// Owner: one thread.
class TaskPlacement {
  public:
    TaskPlacement(std::vector<std::string> names, TaskSet tasks)
        : names_(std::move(names)), tasks_(tasks) {}

    // What is placed on this worker; nothing: it is no member.
    std::optional<TaskSet> of(WorkerId worker, const std::vector<WorkerId>& members);
    TaskSet tasks() const { return tasks_; }              // all that are placed
    std::uint64_t computed() const { return computed_; }  // times

  private:
    std::vector<std::string> names_;
    TaskSet tasks_;
    std::vector<WorkerId> members_;  // of the last placement
    std::map<WorkerId, TaskSet> placed_;
    std::uint64_t computed_ = 0;
};

// What a step of this batch is computed for: the tasks it names, or all of the model's.
TaskSet tasks_of(const BatchRange& batch, std::size_t tasks);

// Workers 0 to `workers` − 1: the members before any of them is lost.
std::vector<WorkerId> all_workers(std::uint32_t workers);

// What `detente plan` prints of it: a line per worker.
std::string describe(const std::map<WorkerId, TaskSet>& placement,
                     const std::vector<std::string>& names);

}  // namespace detente
