// Pairs of tasks as every JSON of ours has them: {"a": {"b": {mean, p10, p90, negative_share}}};
// and single tasks, {"a": {norm_mean, weight_mean}}.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <vector>

#include "launch/cluster_view.h"
#include "launch/layer_pairs.h"

namespace detente {

// null where it is not finite: JSON has no NaN, and a diverged run's losses are just that.
boost::json::value number(double value);
boost::json::object json_of(const std::vector<PairSummary>& pairs);
boost::json::object json_of(const std::vector<LayerPairs>& layers);  // by the layer's name
boost::json::object json_of(const std::vector<TaskSummary>& tasks);
boost::json::object json_of(const std::vector<AcrossSummary::Pair>& pairs);  // no quantiles

}  // namespace detente
