#include "common/model_description.h"

#include <algorithm>
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
    json::array gates;
    for (const GateDescription& gate : description.gates) {
        gates.push_back(json::object{{"tensor", gate.tensor},
                                     {"task", gate.task.value},
                                     {"gated", json::array(gate.gated.begin(), gate.gated.end())}});
    }
    return json::serialize(json::object{
        {"model", description.model},
        {"tasks", std::move(tasks)},
        {"metrics", json::array(description.metrics.begin(), description.metrics.end())},
        {"tensors", std::move(tensors)},
        {"gates", std::move(gates)},
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

GateDescription gate_of(const json::object& object) {
    GateDescription gate;
    gate.tensor = object.at("tensor").to_number<std::uint32_t>();
    gate.task = TaskId{object.at("task").to_number<std::uint32_t>()};
    gate.gated = json::value_to<std::vector<std::uint32_t>>(object.at("gated"));
    return gate;
}

bool is_sound(const GateDescription& gate, const ModelDescription& description) {
    const auto known = [&](std::uint32_t tensor) { return tensor < description.tensors.size(); };
    return known(gate.tensor) && description.tensors[gate.tensor].elements() == 1 &&
           gate.task.value < description.tasks.size() &&
           std::all_of(gate.gated.begin(), gate.gated.end(), known);
}

}  // namespace

Result<ModelDescription> model_description_from_json(std::string_view text) {
    try {
        const json::value parsed = json::parse(json::string_view(text.data(), text.size()));
        const json::object& object = parsed.as_object();
        ModelDescription description;
        description.model = json::value_to<std::string>(object.at("model"));
        description.tasks = json::value_to<std::vector<std::string>>(object.at("tasks"));
        if (const json::value* metrics = object.if_contains("metrics")) {
            description.metrics = json::value_to<std::vector<std::string>>(*metrics);
            if (!description.metrics.empty() &&
                description.metrics.size() != description.tasks.size()) {
                return bad_description("a metric for some tasks and not for others");
            }
        }
        description.training_samples = object.at("training_samples").to_number<std::uint64_t>();
        description.test_samples = object.at("test_samples").to_number<std::uint64_t>();
        description.versions = json::value_to<std::string>(object.at("versions"));
        if (const json::value* library = object.if_contains("library")) {
            description.library = json::value_to<std::string>(*library);
        }
        for (const json::value& tensor : object.at("tensors").as_array()) {
            description.tensors.push_back(tensor_of(tensor.as_object()));
        }
        for (const json::value& gate : object.at("gates").as_array()) {
            description.gates.push_back(gate_of(gate.as_object()));
            if (!is_sound(description.gates.back(), description)) {
                return bad_description("a gate that names no tensor of one element or no task");
            }
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
