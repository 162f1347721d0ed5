#include "worker/builtin/catalog.h"

#include "common/nearest_name.h"
#include "worker/builtin/models.h"

namespace detente {

const std::vector<std::pair<std::string, std::string>>& builtin_models() {
    static const std::vector<std::pair<std::string, std::string>> models = {
        {"null", "computes nothing (tasks, tensors, elements, samples)"},
        {"quadratic",
         "a quadratic per task (dimension, tasks, tensors, matrix = diagonal | tridiagonal, "
         "smallest, largest, noise, noise_draw = coordinate | all, start, distance, samples)"},
        {"logistic",
         "logistic regression on a CSV file of numbers in data.dir (file, targets, l2, "
         "test_every)"}};
    return models;
}

Result<std::unique_ptr<Engine>> make_builtin(const std::string& library,
                                             const EngineOptions& options) {
    const std::string name = library.substr(kBuiltinPrefix.size());
    BuiltinOptions read(name, options);
    if (!options.frozen.empty()) {
        return fail(ErrorCode::bad_job, "model.frozen: the builtin models freeze nothing");
    }
    if (name == "null") return make_null_engine(read);
    if (name == "quadratic") return make_quadratic_engine(read, options.seed);
    if (name == "logistic") return make_logistic_engine(read, options);
    std::vector<std::string> names;
    for (const auto& [known, meaning] : builtin_models()) names.push_back("builtin:" + known);
    return fail(ErrorCode::bad_model, "model.library: there is no " + library + "; did you mean " +
                                          nearest_name(library, names) + "?");
}

}  // namespace detente
