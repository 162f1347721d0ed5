// An engine whose tensors lie in stored order (common/partition/stored_order.h): what a worker
// computes with, so that every block is one run of a tensor's elements to it.
#pragma once

#include <memory>

#include "common/partition/plan.h"
#include "worker/engine.h"

namespace detente {

// `engine` itself where the plan stores every tensor as it lies. Otherwise values are carried over
// on their way in and out, at the cost of a copy of each such tensor, and of each task's row of it;
// there is no representation space (the job refuses masks there).
std::unique_ptr<Engine> in_stored_order(std::unique_ptr<Engine> engine, const Plan& plan);

}  // namespace detente
