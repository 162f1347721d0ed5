// The coordinator's services as nodes of a simulation: they answer within their event, so that
// merging and evaluating take no virtual time.
//
// Thread: the world's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/runtime/contracts.h"
#include "launch/checkpoint_services.h"

namespace detente {

class SimulatedMerger final : public Node {
  public:
    using Merge = std::function<CheckpointReply(const CheckpointRequest&)>;
    explicit SimulatedMerger(Merge merge) : merge_(std::move(merge)) {}
    void on(Event&& event, Time now, Effects& effects) override;

  private:
    Merge merge_;
};

class SimulatedEvaluator final : public Node {
  public:
    explicit SimulatedEvaluator(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}
    void on(Event&& event, Time now, Effects& effects) override;

  private:
    Result<std::vector<TaskScore>> score(const CheckpointRequest& request);
    std::unique_ptr<Engine> engine_;
};

}  // namespace detente
