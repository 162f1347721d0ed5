// A method for some of a job's tasks: those that own blocks of what it is asked about. A task that
// owns none has no gradient there, which is not the same as a gradient of zero: to mgda that would
// be the shortest of all.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/conflict/gramian.h"
#include "common/ids.h"

namespace detente {

// Their numbers, ascending; of those below `tasks`.
std::vector<std::size_t> indices_of(TaskSet members, std::size_t tasks);
// The method's parameters, of what they list per task the members' part: the tasks are numbered
// anew, in their order.
AggregatorConfig for_members(const AggregatorConfig& config, TaskSet members, std::size_t tasks);
// Rows and columns of the members.
Gramian for_members(const Gramian& whole, TaskSet members);
// The members' values; of an empty list an empty one.
std::vector<double> for_members(std::span<const double> whole, TaskSet members);
// The other way: a value per task, `others` for those that are no members.
std::vector<double> for_all(std::span<const double> of_members, TaskSet members, std::size_t tasks,
                            double others);

}  // namespace detente
