// A gate between two modules, for instance at the end of a residual branch:
//
//     gate_ = add_gate("branch");                        // in the constructor
//     return heads(shared + gate_(branch_(shared)));     // in forward
//
// Forward it changes nothing. On the way back it multiplies the gradient of each task by σ(a), a
// number of that task's own, learned by looking one step ahead (worker/gate_rows.h): a gate opens
// for a task whose gradient makes the sum of all losses smaller at the next step, and closes where
// it makes it larger. The a's are parameters like any other, "gates.branch.TASK"; they start at
// gates.initial of the job, and gates.enabled = false makes gates pass everything as it is.
//
// Which parameters are gated follows from the graph: those whose whole gradient passes the gate.
//
// Thread: the engine's compute thread.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/torch/task.h"

namespace detente {

// What one gate holds; a module, so that its parameters have names.
class GateParameters : public torch::nn::Module {
  public:
    explicit GateParameters(const std::string& name) : torch::nn::Module(name) {}
    // One a per task; until then, and where `enabled` is false, everything passes as it is. They
    // stay on the host, wherever the model computes.
    void make(const std::vector<Task>& tasks, bool enabled, double initial);
    // Whose backward runs from now on; nullptr: nobody's. LibTorch may run it on a thread of its
    // own, which has no current task.
    void begin_backward(const Task* task) { backward_of_ = task; }
    const Task* backward_of() const { return backward_of_; }
    bool enabled() const { return enabled_; }
    // σ(a) of the task; 1 where nothing is scaled.
    double open(const Task* task) const;
    const std::vector<torch::Tensor>& values() const { return values_; }  // a, by task

  private:
    bool enabled_ = false;
    std::atomic<const Task*> backward_of_ = nullptr;
    std::vector<torch::Tensor> values_;
};

class Gate {
  public:
    Gate() = default;  // of no model: passes everything as it is
    explicit Gate(std::shared_ptr<const GateParameters> parameters)
        : parameters_(std::move(parameters)) {}
    torch::Tensor operator()(const torch::Tensor& values) const;

  private:
    std::shared_ptr<const GateParameters> parameters_;
};

}  // namespace detente
