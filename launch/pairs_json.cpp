#include "launch/pairs_json.h"

namespace detente {

boost::json::object json_of(const std::vector<PairSummary>& pairs) {
    boost::json::object object;
    for (const PairSummary& pair : pairs) {
        boost::json::value& of_a = object[pair.a];
        if (!of_a.is_object()) of_a = boost::json::object();
        of_a.as_object()[pair.b] = boost::json::object{{"mean", pair.mean},
                                                       {"p10", pair.p10},
                                                       {"p90", pair.p90},
                                                       {"negative_share", pair.negative_share}};
    }
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
