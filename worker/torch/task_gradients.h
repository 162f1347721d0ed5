// The engine of a LibTorch model: one forward, then one backward per task, each over the tensors
// that task's loss reaches; in representation space each to the trunk's output and over the task's
// own tensors, and one more through the trunk. On a device (device.h) the same, with each task's
// gradients on their way to the host while the next task's are computed.
//
// Thread: one compute thread (engine.h). It seeds LibTorch's default generator, which is one per
// process: two engines that compute at the same time belong in two processes.
// Invariants: the model's tensors keep their addresses; between calls no graph is alive, so load()
// may overwrite them (in representation space a trunk's graph is, in the gradients handed out: its
// weights must be back before trunk_gradient()); a gradient handed out is never written again.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "worker/engine.h"
#include "worker/torch/device.h"
#include "worker/torch/model.h"
#include "worker/torch/probe.h"

namespace detente {

class TorchRows;

class TaskGradientEngine final : public Engine {
  public:
    // Seeds the initial weights, constructs the model, probes it (probe.h) and opens its task logs.
    // Then it moves to options.device, or to `accelerator` where one is given. Errors: bad_model,
    // bad_dataset, bad_job (an option the model does not know), io (a log), not_supported (no such
    // device).
    static Result<std::unique_ptr<TaskGradientEngine>> create(
        const std::string& name, ModelFactory factory, const EngineOptions& options,
        std::optional<Accelerator> accelerator = std::nullopt);

    const ModelDescription& description() const override { return description_; }
    std::span<const float> tensor(std::size_t index) const override;
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> values) override;
    Result<GradientReport> gradients(const GradientRequest& request) override;
    bool at_representation() const override { return representation_; }
    Result<std::shared_ptr<const TrunkGradient>> trunk_gradient(
        const TaskGradients& of, std::span<const float> combined) override;
    // not_supported on a device: a model is scored on the processor.
    Result<std::vector<TaskScore>> evaluate() override;
    bool draws_from_shared_generator() const override { return draws_; }

  private:
    TaskGradientEngine(std::string name, const EngineOptions& options);
    void fix_threads();
    c10::Device device() const { return streams_ ? streams_->device() : c10::Device(c10::kCPU); }
    void seed_streams(std::uint64_t key);
    bool is_of_gate(const torch::Tensor& value) const;
    void move_to(Accelerator accelerator);
    std::optional<Error> try_device();
    std::vector<std::uint32_t> probe_samples() const;
    Batch batch(std::span<const std::uint32_t> samples);  // of training, where it computes
    std::vector<double> numbers(const std::vector<torch::Tensor>& losses, TaskSet tasks) const;
    bool draws(const std::vector<std::uint32_t>& samples);
    void make_gates(const EngineOptions& options);
    std::optional<Error> probe(const EngineOptions& options);
    std::optional<Error> probe_graph(const std::vector<std::uint32_t>& samples);
    void describe_tensors();
    std::optional<Error> open_logs(const std::string& folder);
    std::optional<Error> check(const GradientRequest& request) const;
    // Over the model with its graph cut at the trunk's output.
    std::vector<torch::Tensor> cut_losses(const std::vector<std::uint32_t>& samples,
                                          Representation& cut);
    // nullptr: not cut.
    Result<GradientReport> backwards(const GradientRequest& request,
                                     const std::vector<torch::Tensor>& losses,
                                     const Representation* cut);
    // One task's: of its tensors in the order of owned_, then, where cut, at the trunk's output;
    // undefined where the batch did not reach.
    std::vector<torch::Tensor> backward(const Task& task, const torch::Tensor& loss,
                                        const Representation* cut, bool keep_graph);
    void place(const Task& task, const std::vector<torch::Tensor>& gradients, TorchRows& rows);

    std::string name_;
    int threads_;
    std::thread::id thread_;  // the thread whose OpenMP is set to threads_
    bool draws_ = true;
    std::shared_ptr<Model> model_;
    ModelDescription description_;
    std::vector<ProbedTensor> tensors_;            // in the order of description_.tensors
    std::vector<std::vector<std::size_t>> owned_;  // per task: indices of the tensors it owns
    bool representation_ = false;
    std::vector<std::size_t> trunk_;          // in representation space: indices of its tensors
    std::unique_ptr<DeviceStreams> streams_;  // on the processor: none of both
    std::unique_ptr<DeviceWeights> weights_;
};

}  // namespace detente
