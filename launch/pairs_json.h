// Pairs of tasks as every JSON of ours has them: {"a": {"b": {mean, p10, p90, negative_share}}};
// and single tasks, {"a": {norm_mean, weight_mean}}.
#pragma once

#include <boost/json/object.hpp>
#include <vector>

#include "launch/cluster_view.h"

namespace detente {

boost::json::object json_of(const std::vector<PairSummary>& pairs);
boost::json::object json_of(const std::vector<TaskSummary>& tasks);

}  // namespace detente
