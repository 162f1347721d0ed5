#include "launch/simulated_services.h"

#include "launch/coordinator.h"

namespace detente {
namespace {

const CheckpointRequest* request_in(const Event& event) {
    const auto* received = std::get_if<Received>(&event);
    return received == nullptr ? nullptr : std::get_if<CheckpointRequest>(&received->message.body);
}

void answer(Effects& effects, Body body) {
    Message message;
    message.body = std::move(body);
    effects.send(kCoordinator, std::move(message));
}

}  // namespace

void SimulatedMerger::on(Event&& event, Time /*now*/, Effects& effects) {
    if (const CheckpointRequest* request = request_in(event)) answer(effects, merge_(*request));
}

Result<std::vector<TaskScore>> SimulatedEvaluator::score(const CheckpointRequest& request) {
    auto loaded = load_weights(*engine_, request.directory + "/model.safetensors");
    if (loaded.has_error()) return loaded.error();
    return engine_->evaluate();
}

void SimulatedEvaluator::on(Event&& event, Time /*now*/, Effects& effects) {
    const CheckpointRequest* request = request_in(event);
    if (request == nullptr) return;
    const auto scores = score(*request);
    Stopped answered;
    if (scores.has_error()) {
        answered.failed = true;
        answered.code = scores.error().code;
        answered.error = scores.error().text;
    } else {
        for (const TaskScore& one : *scores) {
            answered.last.values.push_back({"accuracy." + one.task, one.accuracy});
            answered.last.values.push_back({"loss." + one.task, one.loss});
        }
    }
    answer(effects, std::move(answered));
}

}  // namespace detente
