// Learns the gates of a model. A gate multiplies what a task's gradient passes back through it by
// σ(a), so that autograd has no gradient for a; this is it, by looking one step ahead: had a been
// larger at step t, the gated parameters would have moved further, and the loss L of step t + 1,
// the sum over the tasks, would have changed by
//
//     ∂L_{t+1}/∂a = −η·σ′(a)·⟨g_{t+1}, g_t⟩,
//
// g_t the task's own gradient of the gated parameters at step t, g_{t+1} that of L at step t + 1,
// both as they are without gates, η the base rate of each parameter's rule. It holds for one
// worker, plain SGD at a constant rate, and the sum of the tasks' gradients; under any other rule,
// method, schedule, clipping or staleness it is an approximation, as it is where a parameter is
// gated for one task and not for another, since the loss then also counts what no gate passes.
//
// Of step t is kept v = σ′(a)·g_t = (1 − σ(a))·(the gated gradient): T × the gated
// parameters' bytes, twice while a step is under way; a worker's file of a checkpoint has it. At a
// worker's first step there is none, and a stays where it is.
//
// Thread: the compute thread. Kept vectors advance when a step is combined, so that a cancelled
// computation leaves none behind.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "common/config.h"
#include "common/model_description.h"
#include "common/partition/plan.h"
#include "worker/engine.h"
#include "worker/held_gradients.h"

namespace detente {

class GateRows {
  public:
    // nullptr: the model has no gates, or they are off. The plan refuses them in representation
    // space.
    static std::unique_ptr<GateRows> create(const Job& job, const Plan& plan,
                                            const ModelDescription& model);

    // Puts the gates' gradients into the rows of their tensors. `engine` holds the weights the
    // rows were computed at.
    void learn(const Engine& engine, HeldGradients& held) const;
    void keep(const HeldGradients& held) {
        if (held.gates != nullptr) kept_ = held.gates;
    }
    const std::shared_ptr<const GateVectors>& kept() const { return kept_; }  // null: none yet
    // Goes on from there; false: it is of other gates, or of others that they pass.
    bool restore(std::shared_ptr<const GateVectors> kept);

  private:
    struct Gate {
        std::size_t tensor = 0;
        std::uint32_t task = 0;
        std::vector<std::size_t> blocks;  // places in blocks_ that its task may update
    };
    // Of a tensor that is gated for some task.
    struct GatedBlock {
        Block block;
        double learning_rate = 0;
        // By task: the gates its gradient of this block passes, by place in gates_.
        std::vector<std::vector<std::size_t>> passes;
    };
    GateRows() = default;
    // Σ over tasks of the gradient as it is without gates.
    std::vector<float> ungated_sum(const GatedBlock& gated, const std::vector<double>& open,
                                   const HeldGradients& held) const;

    std::size_t tasks_ = 0;
    std::vector<Gate> gates_;
    std::vector<GatedBlock> blocks_;
    std::shared_ptr<const GateVectors> kept_;
};

}  // namespace detente
