// What `detente plan` says of a job whose tasks are split over workers: which worker computes
// which, and what the servers remember of tasks' gradients.
#pragma once

#include <string>

#include "common/config.h"
#include "common/model_description.h"
#include "common/partition/plan.h"

namespace detente {

// Nothing where tasks are not split.
std::string describe_split(const Plan& plan, const ModelDescription& model, const Job& job);

}  // namespace detente
