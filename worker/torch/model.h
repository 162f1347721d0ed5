// What a user writes: a class derived from Model with a trunk, one head per task and its data, and
// one line DETENTE_MODEL(TheClass). Built as a shared library (detente_add_model), named in the
// job file. A Model is a torch::nn::Module: parameters have the model's own dotted names.
//
//     class Digits : public detente::Model {
//       public:
//         explicit Digits(const detente::ModelOptions& options) {
//             trunk_ = register_module("trunk", torch::nn::Linear(64, 32));
//             add_task("digit", torch::nn::Linear(32, 10));  // parameters "heads.digit.weight", …
//             add_task("odd", torch::nn::Linear(32, 2));
//             auto [pixels, digit] = read(options.dataset_dir());
//             set_samples(detente::Split::training, pixels, {digit, digit % 2});
//             set_samples(detente::Split::test, …);
//         }
//         std::vector<torch::Tensor> forward(const detente::Batch& batch) override {
//             return heads(torch::relu(trunk_(batch.input())));
//         }
//         …
//
// Loss and score are cross entropy and accuracy unless overridden. A new task is one add_task and
// one more target.
//
// On a GPU (worker.device of the job): a model is made, tried and scored on the processor; then its
// parameters, and each step's batch, are moved. What it makes otherwise must be where the batch is:
// torch::arange(n, batch.input().device()). A task's part (each_task, a head) runs in a stream of
// its own: it reads what was made before, or by itself, and nothing of another task's part.
//
// Thread: constructed and called by the one compute thread of its engine, never concurrently.
// Randomness: initial weights are a function of the job's seed, dropout of the computation's key,
// because the engine seeds LibTorch's default generators, the processor's and the device's, before
// each; a model draws from those only, and starts no threads that do.
#pragma once

#include <torch/nn/module.h>
#include <torch/version.h>

#include <concepts>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/engine.h"
#include "worker/torch/device.h"
#include "worker/torch/gates.h"
#include "worker/torch/representation.h"
#include "worker/torch/task.h"

namespace detente {

// Thrown by a model for missing or unreadable input; becomes the error bad_dataset. The text names
// the file, what was expected and found, and what to do.
struct DatasetError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What the job says to a model; valid while it is constructed. Every key of [model.options] must be
// asked for then: one that is not is refused by name, so a mistyped key never passes silently.
class ModelOptions {
  public:
    explicit ModelOptions(const EngineOptions& options) : options_(options) {}
    std::uint64_t seed() const { return options_.seed; }
    const std::string& dataset_dir() const { return options_.dataset_dir; }  // data.dir of the job
    // Value of a key, or `fallback` where the job does not set it. Throws std::invalid_argument,
    // naming key and value, if it is no such number.
    std::string text(const std::string& key, const std::string& fallback) const;
    std::int64_t integer(const std::string& key, std::int64_t fallback) const;
    double real(const std::string& key, double fallback) const;
    bool flag(const std::string& key, bool fallback) const;

    std::vector<std::string> unread() const;  // keys of the job nobody asked for
    std::vector<std::string> known() const;   // keys that were asked for

  private:
    const std::string* find(const std::string& key) const;

    const EngineOptions& options_;
    mutable std::set<std::string> asked_;
};

enum class Split { training, test };

struct Batch {
    std::vector<torch::Tensor> inputs;   // one that all tasks share, or one per task
    std::vector<torch::Tensor> targets;  // one per task
    const torch::Tensor& input(std::size_t task = 0) const {
        return inputs.size() == 1 ? inputs.front() : inputs.at(task);
    }
};

// What a task scores is hits / count, each summed over all batches: of accuracy the right answers
// among those asked for. Any metric that is a ratio of sums fits, as F1 does: hits 2·TP, count
// 2·TP + FP + FN.
struct Score {
    double hits = 0;
    double count = 0;
    double loss = 0;      // a mean …
    double samples = -1;  // … over so many answers; negative: `count` of them
};

class Model : public torch::nn::Module {
  public:
    // One output per task, in the order of add_task. Heads run one by one inside their task's
    // scope if it returns heads(…) or each_task(…).
    virtual std::vector<torch::Tensor> forward(const Batch& batch) = 0;
    // One scalar per task, each from its own graph: the engine differentiates each by itself, so
    // they must not be summed, averaged or otherwise mixed here.
    virtual std::vector<torch::Tensor> losses(const Batch& batch);
    // Loss of one task. Here: cross entropy of logits [N, classes, …] and class numbers [N, …].
    virtual torch::Tensor loss(std::size_t task, const torch::Tensor& output,
                               const torch::Tensor& target);
    // Hits of one task. Here: the largest logit is the target's.
    virtual Score score(std::size_t task, const torch::Tensor& output, const torch::Tensor& target);
    // What score() of that task is, for tables.
    virtual std::string metric(std::size_t /*task*/) const { return "accuracy"; }
    // Scores on one batch, one per task; run without gradients and in evaluation mode.
    virtual std::vector<Score> scores(const Batch& batch);

    // The data. Here: rows of what set_samples was given; override both to read it elsewhere.
    virtual std::uint64_t samples(Split split) const;
    virtual Batch batch(Split split, std::span<const std::uint32_t> samples);

    std::vector<Task>& tasks() { return tasks_; }
    const std::vector<Task>& tasks() const { return tasks_; }

  protected:
    // Declares the next task. Names are letters, digits, '_' and '-'; at most 64 tasks.
    void add_task(const std::string& name);
    // The same with its head, a module from the trunk's output to the task's.
    template <class Head>
    requires requires(Head& head, const torch::Tensor& shared) {
        head.ptr();
        { head->forward(shared) } -> std::same_as<torch::Tensor>;
    }
    void add_task(const std::string& name, Head head) {
        add_head(name, head.ptr(),
                 [head](const torch::Tensor& shared) mutable { return head->forward(shared); });
    }
    // A gate that scales each task's gradient on its way back by a number that is learned; see
    // worker/torch/gates.h. Its name is letters, digits, '_' and '-'.
    Gate add_gate(const std::string& name);
    // The head of one task, and every head on the trunk's output, each inside its task's scope. In
    // representation space (conflict.space of the job) heads() is where the graph is cut.
    torch::Tensor head(std::size_t task, const torch::Tensor& shared);
    std::vector<torch::Tensor> heads(const torch::Tensor& shared);
    // Calls `part` once per task, inside the task's scope and with its random stream: what one task
    // draws does not depend on which other tasks there are.
    std::vector<torch::Tensor> each_task(const std::function<torch::Tensor(std::size_t)>& part);

    // Keeps one split in memory; a sample is a row of every tensor. `inputs` is one tensor that all
    // tasks share, or one per task; `targets` is one per task.
    void set_samples(Split split, std::vector<torch::Tensor> inputs,
                     std::vector<torch::Tensor> targets);
    void set_samples(Split split, torch::Tensor inputs, std::vector<torch::Tensor> targets) {
        set_samples(split, std::vector<torch::Tensor>{std::move(inputs)}, std::move(targets));
    }

  private:
    friend class TaskGradientEngine;  // makes the gates, and cuts
    using Head = std::function<torch::Tensor(const torch::Tensor&)>;
    void add_head(const std::string& name, std::shared_ptr<torch::nn::Module> module, Head head);
    const Batch& held(Split split) const;

    std::vector<Task> tasks_;
    std::vector<Head> heads_;
    std::shared_ptr<torch::nn::Module> heads_module_;
    std::vector<std::shared_ptr<GateParameters>> gates_;
    Representation* cut_ = nullptr;           // of the forward at hand, where there is to be one
    const DeviceStreams* streams_ = nullptr;  // on the processor: none
    Batch held_[2];
};

using ModelFactory = std::shared_ptr<Model> (*)(const ModelOptions&);

// Makes the engine of a model (task_gradients.cpp). Catches everything; nullptr fills `error`.
Engine* create_engine(const char* name, ModelFactory factory, const EngineOptions& options,
                      Error& error);

template <class M>
std::shared_ptr<Model> make_model(const ModelOptions& options) {
    return std::make_shared<M>(options);
}

}  // namespace detente

// Exports a model class from a model library; once per library.
#define DETENTE_MODEL(Type)                                                                       \
    extern "C" {                                                                                  \
    extern const ::detente::EngineEntry detente_engine_entry                                      \
        __attribute__((visibility("default")));                                                   \
    const ::detente::EngineEntry detente_engine_entry = {                                         \
        ::detente::kEngineAbi, "g++ " __VERSION__ ", LibTorch " TORCH_VERSION,                    \
        [](const ::detente::EngineOptions& options,                                               \
           ::detente::Error& error) -> ::detente::Engine* {                                       \
            return ::detente::create_engine(#Type, &::detente::make_model<Type>, options, error); \
        }};                                                                                       \
    }
