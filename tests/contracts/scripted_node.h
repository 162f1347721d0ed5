// A node that does what a test says, event by event.
#pragma once

#include <functional>
#include <utility>

#include "common/runtime/contracts.h"

namespace detente::testing {

class ScriptedNode : public Node {
  public:
    using Script = std::function<void(Event&&, Time, Effects&)>;
    explicit ScriptedNode(Script script) : script_(std::move(script)) {}
    void on(Event&& event, Time now, Effects& effects) override {
        script_(std::move(event), now, effects);
    }

  private:
    Script script_;
};

// A computer that does what a test says.
class ScriptedComputer : public Computer {
  public:
    using Part = std::function<void(std::uint32_t, Payload)>;
    using Script = std::function<WorkResult(const Work&, const std::atomic<bool>&, const Part&)>;
    explicit ScriptedComputer(Script script) : script_(std::move(script)) {}
    WorkResult run(const Work& work, const std::atomic<bool>& cancelled,
                   const Part& part) override {
        return script_(work, cancelled, part);
    }

  private:
    Script script_;
};

// The message a test sends when any will do: `step` tells one from the other.
inline Message numbered(std::uint64_t number) {
    PullRequest request;
    request.step = Step{number};
    return {Envelope{}, std::move(request)};
}
// The number of such a message; 0 if the event is something else.
inline std::uint64_t number_of(const Event& event) {
    const auto* received = std::get_if<Received>(&event);
    if (received == nullptr) return 0;
    const auto* request = std::get_if<PullRequest>(&received->message.body);
    return request == nullptr ? 0 : request->step.value;
}

}  // namespace detente::testing
