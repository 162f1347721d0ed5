#include "common/model_description.h"

#include <boost/json.hpp>

namespace detente {
namespace json = boost::json;

std::uint64_t TensorDescription::elements() const {
    std::uint64_t count = 1;
    for (const std::int64_t extent : shape) count *= static_cast<std::uint64_t>(extent);
    return count;
}

std::string to_json(const ModelDescription& description) {
    json::array tensors;
    for (const TensorDescription& tensor : description.tensors) {
        json::array shape;
        for (const std::int64_t extent : tensor.shape) shape.emplace_back(extent);
        tensors.push_back(json::object{{"name", tensor.name},
                                       {"shape", std::move(shape)},
                                       {"owners", std::to_string(tensor.owners.bits)},
                                       {"frozen", tensor.frozen}});
    }
    json::array tasks;
    for (const std::string& task : description.tasks) tasks.emplace_back(task);
    return json::serialize(json::object{{"model", description.model},
                                        {"tasks", std::move(tasks)},
                                        {"tensors", std::move(tensors)},
                                        {"training_samples", description.training_samples},
                                        {"test_samples", description.test_samples},
                                        {"versions", description.versions},
                                        {"library", description.library}});
}

namespace {

Error bad_description(const std::string& what) {
    return fail(ErrorCode::bad_model,
                "model description: " + what + "; expected what `detente describe JOB` prints");
}

TensorDescription tensor_of(const json::object& object) {
    TensorDescription tensor;
    tensor.name = json::value_to<std::string>(object.at("name"));
    tensor.shape = json::value_to<std::vector<std::int64_t>>(object.at("shape"));
    tensor.owners.bits = std::stoull(json::value_to<std::string>(object.at("owners")));
    tensor.frozen = object.at("frozen").as_bool();
    return tensor;
}

}  // namespace

Result<ModelDescription> model_description_from_json(std::string_view text) {
    try {
        const json::value parsed = json::parse(json::string_view(text.data(), text.size()));
        const json::object& object = parsed.as_object();
        ModelDescription description;
        description.model = json::value_to<std::string>(object.at("model"));
        description.tasks = json::value_to<std::vector<std::string>>(object.at("tasks"));
        description.training_samples = object.at("training_samples").to_number<std::uint64_t>();
        description.test_samples = object.at("test_samples").to_number<std::uint64_t>();
        description.versions = json::value_to<std::string>(object.at("versions"));
        if (const json::value* library = object.if_contains("library")) {
            description.library = json::value_to<std::string>(*library);
        }
        for (const json::value& tensor : object.at("tensors").as_array()) {
            description.tensors.push_back(tensor_of(tensor.as_object()));
        }
        if (description.tasks.empty()) return bad_description("no task");
        if (description.tasks.size() > kMaxTasks) return bad_description("more than 64 tasks");
        if (description.tensors.empty()) return bad_description("no tensor");
        for (const TensorDescription& tensor : description.tensors) {
            for (const std::int64_t extent : tensor.shape) {
                if (extent <= 0) return bad_description("tensor " + tensor.name + " is empty");
            }
        }
        return description;
    } catch (const std::exception& error) {
        return bad_description(error.what());
    }
}

}  // namespace detente
