// An engine is a model that can compute: what a model library hands to the worker. It knows nothing
// of servers, versions or messages, and this header nothing of LibTorch, so that the worker, the
// simulator and the tests use any engine alike.
//
// Thread: one engine belongs to one compute thread; no call overlaps another, except that
// `cancelled` may be set from outside at any time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/model_description.h"
#include "common/result.h"

namespace detente {

// A task as the job file names it: its tensors are those its loss reaches, less what `exclude`
// names.
struct EngineOptions {
    std::uint64_t seed = 0;
    int threads = 1;             // intra-op; fixed, since bits depend on it
    std::string device = "cpu";  // or "cuda:N": where gradients are computed
    std::string dataset_dir;
    std::vector<std::pair<std::string, std::string>> options;  // [model.options] of the job
    std::vector<std::string> frozen;                           // name patterns
    bool gates = true;  // off: gates pass gradients as they are
    double gate_initial = -2;
    bool representation = false;  // gradients will be asked for at the trunk's output
    std::string log_dir;          // one log file per task goes here; empty = none
};

// The gradients of one computation, one row per task, kept alive by whoever holds this.
class TaskGradients {
  public:
    virtual ~TaskGradients() = default;
    // Row of `task` for tensor `tensor` (index in ModelDescription::tensors), all its elements,
    // contiguous float32; nullptr where the task does not own the tensor or it is frozen.
    virtual const float* gradient(TaskId task, std::size_t tensor) const = 0;
    // In representation space: the task's gradient at the trunk's output, as long for every task;
    // empty where its loss does not reach it. There are no rows of the trunk's tensors then.
    virtual std::span<const float> representation(TaskId /*task*/) const { return {}; }
};

// The gradient that flows through the trunk from its output, kept alive by whoever holds this.
class TrunkGradient {
  public:
    virtual ~TrunkGradient() = default;
    // All elements of a tensor of the trunk; nullptr for another, or one that is frozen.
    virtual const float* gradient(std::size_t tensor) const = 0;
};

struct GradientRequest {
    std::vector<std::uint32_t> samples;  // indices into the training set
    std::uint64_t data_epoch = 0;
    std::uint64_t random_key = 0;                  // dropout and the like draw from this only
    TaskSet tasks;                                 // which tasks to compute
    bool representation = false;                   // at the trunk's output; as the engine was made
    const std::atomic<bool>* cancelled = nullptr;  // read between two tasks' backwards
    // May be called once per task as its rows are there, so that what follows need not wait for the
    // other tasks; empty: not wanted.
    std::function<void(TaskId, const TaskGradients&)> task_done{};
};

struct GradientReport {
    std::vector<double> losses;  // one per task of the model; 0 for tasks not asked for
    std::shared_ptr<const TaskGradients> gradients;
};

struct TaskScore {
    std::string task;
    double accuracy = 0;  // in [0, 1]
    double loss = 0;
    std::uint64_t samples = 0;
};

class Engine {
  public:
    virtual ~Engine() = default;
    virtual const ModelDescription& description() const = 0;
    // Current values of a tensor; after construction the initial weights, a function of the seed.
    virtual std::span<const float> tensor(std::size_t index) const = 0;
    // Overwrites part of a tensor, from element `offset` on. The bytes may lie at any address.
    virtual void load(std::size_t index, std::size_t offset, std::span<const std::byte> values) = 0;
    // One forward, one backward per task. Errors: not_finite names the task whose loss is NaN or
    // Inf; cancelled; bad_model; bad_dataset.
    virtual Result<GradientReport> gradients(const GradientRequest& request) = 0;
    // Whether it was made to give gradients at the trunk's output (EngineOptions::representation).
    virtual bool at_representation() const { return false; }
    // One backward through the trunk, for `combined`, a gradient at its output. Requires: `of` is
    // what gradients() of this engine gave, in representation space, and the weights are as then.
    virtual Result<std::shared_ptr<const TrunkGradient>> trunk_gradient(
        const TaskGradients& /*of*/, std::span<const float> /*combined*/) {
        return fail(ErrorCode::not_supported, "this engine computes in parameter space only");
    }
    // Scores the current weights on the test set, one row per task.
    virtual Result<std::vector<TaskScore>> evaluate() = 0;
    // Whether computing draws from what all engines of a process share (LibTorch's generator): two
    // such engines must not compute at once, or their draws mix.
    virtual bool draws_from_shared_generator() const { return true; }
};

// What a model library exports, as `extern "C" const detente::EngineEntry detente_engine_entry`.
inline constexpr std::uint32_t kEngineAbi = 5;
struct EngineEntry {
    std::uint32_t abi = kEngineAbi;
    const char* built_with = "";  // compiler and LibTorch version, for messages
    // Returns nullptr and fills `error` on failure; catches everything LibTorch may throw.
    Engine* (*create)(const EngineOptions& options, Error& error) = nullptr;
};

// Loads a model library (RTLD_LOCAL), or takes a builtin model (worker/builtin/catalog.h), and
// makes its engine. The library stays loaded as long as the process. bad_model: no such file, not a
// model library, another ABI; the text names file and remedy.
Result<std::unique_ptr<Engine>> load_engine(const std::string& library_path,
                                            const EngineOptions& options);

}  // namespace detente
