#include "launch/pairs_json.h"

#include <cmath>

namespace detente {

namespace {

// Where the pair's numbers go.
boost::json::value& place_of(boost::json::object& object, const std::string& a,
                             const std::string& b) {
    boost::json::value& of_a = object[a];
    if (!of_a.is_object()) of_a = boost::json::object();
    return of_a.as_object()[b];
}

}  // namespace

boost::json::value number(double value) {
    return std::isfinite(value) ? boost::json::value(value) : nullptr;
}

boost::json::object json_of(const std::vector<PairSummary>& pairs) {
    boost::json::object object;
    for (const PairSummary& pair : pairs) {
        place_of(object, pair.a, pair.b) =
            boost::json::object{{"mean", pair.mean},
                                {"p10", pair.p10},
                                {"p90", pair.p90},
                                {"negative_share", pair.negative_share}};
    }
    return object;
}

boost::json::object json_of(const std::vector<AcrossSummary::Pair>& pairs) {
    boost::json::object object;
    for (const AcrossSummary::Pair& pair : pairs) {
        place_of(object, pair.a, pair.b) =
            boost::json::object{{"mean", pair.mean}, {"negative_share", pair.negative_share}};
    }
    return object;
}

boost::json::object json_of(const std::vector<LayerPairs>& layers) {
    boost::json::object object;
    for (const LayerPairs& layer : layers) object[layer.layer] = json_of(layer.pairs);
    return object;
}

boost::json::object json_of(const std::vector<TaskSummary>& tasks) {
    boost::json::object object;
    for (const TaskSummary& task : tasks) {
        boost::json::object own{{"norm_mean", task.norm_mean}};
        if (task.weight_mean) own["weight_mean"] = *task.weight_mean;
        object[task.task] = std::move(own);
    }
    return object;
}

}  // namespace detente
