#include "worker/torch/task_gradients.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "common/invariant.h"
#include "common/nearest_name.h"
#include "common/random.h"
#include "worker/torch/gate_graph.h"
#include "worker/torch/generator.h"

namespace detente {

namespace {

constexpr std::uint32_t kProbeSamples = 8;
constexpr std::uint64_t kScoreSamples = 256;

// Runs `part` and turns whatever it throws into an Error that says what was being done.
template <class Part>
auto catching(const std::string& doing, Part part) -> decltype(part()) {
    try {
        return part();
    } catch (const DatasetError& error) {
        return fail(ErrorCode::bad_dataset, error.what());
    } catch (const c10::Error& error) {
        return fail(ErrorCode::bad_model, doing + ": " + error.what_without_backtrace());
    } catch (const std::exception& error) {
        return fail(ErrorCode::bad_model, doing + ": " + error.what());
    } catch (...) {
        return fail(ErrorCode::bad_model, doing + ": an exception that is no std::exception");
    }
}

// The rows of one computation, [task][tensor]; undefined where the task does not own the tensor, or
// it is of the trunk and the graph was cut.
class TorchRows final : public TaskGradients {
  public:
    TorchRows(std::size_t tasks, std::size_t tensors)
        : rows_(tasks, std::vector<torch::Tensor>(tensors)) {}
    const float* gradient(TaskId task, std::size_t tensor) const override {
        invariant(task.value < rows_.size() && tensor < rows_[task.value].size(),
                  "a gradient is asked for by a task and tensor of the model");
        const torch::Tensor& row = rows_[task.value][tensor];
        return row.defined() ? row.const_data_ptr<float>() : nullptr;
    }
    std::span<const float> representation(TaskId task) const override {
        if (at_output.empty() || !at_output[task.value].defined()) return {};
        const torch::Tensor& row = at_output[task.value];
        return {row.const_data_ptr<float>(), static_cast<std::size_t>(row.numel())};
    }
    torch::Tensor& at(TaskId task, std::size_t tensor) { return rows_[task.value][tensor]; }

    torch::Tensor output;                  // the trunk's, with its graph, where it was cut
    std::vector<torch::Tensor> at_output;  // gradients there, by task

  private:
    std::vector<std::vector<torch::Tensor>> rows_;
};

class TorchTrunk final : public TrunkGradient {
  public:
    explicit TorchTrunk(std::size_t tensors) : rows(tensors) {}
    const float* gradient(std::size_t tensor) const override {
        return rows[tensor].defined() ? rows[tensor].const_data_ptr<float>() : nullptr;
    }
    std::vector<torch::Tensor> rows;  // by tensor
};

}  // namespace

TaskGradientEngine::TaskGradientEngine(std::string name, const EngineOptions& options)
    : name_(std::move(name)), threads_(options.threads) {}

Result<std::unique_ptr<TaskGradientEngine>> TaskGradientEngine::create(
    const std::string& name, ModelFactory factory, const EngineOptions& options) {
    const std::string doing = "model " + name + ", made and tried on a few samples";
    return catching(doing, [&]() -> Result<std::unique_ptr<TaskGradientEngine>> {
        std::unique_ptr<TaskGradientEngine> engine(new TaskGradientEngine(name, options));
        engine->fix_threads();
        seed_default_generator(random_key(options.seed, Purpose::initial_weights));
        const ModelOptions model_options(options);
        engine->model_ = factory(model_options);
        if (const auto unread = model_options.unread(); !unread.empty()) {
            const std::vector<std::string> known = model_options.known();
            return fail(
                ErrorCode::bad_job,
                "[model.options] " + unread.front() + ": model " + name + " has no such option" +
                    (known.empty()
                         ? ", nor any other"
                         : "; the nearest is \"" + nearest_name(unread.front(), known) + "\""));
        }
        engine->make_gates(options);
        if (auto error = engine->probe(options)) return *error;
        if (auto error = engine->open_logs(options.log_dir)) return *error;
        return engine;
    });
}

// Bits depend on the number of threads, and OpenMP keeps it per thread: an engine built on one
// thread and used on another sets it again.
void TaskGradientEngine::fix_threads() {
    if (thread_ == std::this_thread::get_id()) return;
    thread_ = std::this_thread::get_id();
    at::set_num_threads(threads_);
    try {
        if (at::get_num_interop_threads() != 1) at::set_num_interop_threads(1);
    } catch (const std::exception&) {
        // Another engine of this process has started the pool; this one never uses it.
    }
}

// After the constructor, which may add tasks after gates.
void TaskGradientEngine::make_gates(const EngineOptions& options) {
    if (model_->gates_.empty()) return;
    const auto all = std::make_shared<torch::nn::Module>("gates");
    for (const auto& gate : model_->gates_) {
        gate->make(model_->tasks(), options.gates, options.gate_initial);
        all->register_module(gate->name(), gate);
    }
    model_->register_module("gates", all);
}

std::optional<Error> TaskGradientEngine::probe(const EngineOptions& options) {
    if (model_->tasks().empty()) {
        return fail(ErrorCode::bad_model,
                    "model " + name_ + " has no task; call add_task in its constructor");
    }
    auto tensors = probe_tensors(name_, *model_, options.frozen);
    if (!tensors) return tensors.error();
    tensors_ = std::move(*tensors);
    description_.model = name_;
    description_.training_samples = model_->samples(Split::training);
    description_.test_samples = model_->samples(Split::test);
    description_.versions =
        "LibTorch " TORCH_VERSION ", CPU capability " + at::get_cpu_capability();
    if (description_.training_samples == 0 || description_.test_samples == 0) {
        return fail(ErrorCode::bad_dataset,
                    "model " + name_ + " has " + std::to_string(description_.training_samples) +
                        " training and " + std::to_string(description_.test_samples) +
                        " test samples; expected some of each");
    }
    std::vector<std::uint32_t> samples(
        std::min<std::uint64_t>(kProbeSamples, description_.training_samples));
    std::iota(samples.begin(), samples.end(), 0U);
    representation_ = options.representation;
    if (auto error = probe_graph(samples)) return error;
    draws_ = draws(samples);
    {
        // A score that cannot work is told now, not after training.
        const torch::NoGradGuard no_gradients;
        samples.resize(std::min<std::uint64_t>(samples.size(), description_.test_samples));
        model_->eval();
        model_->scores(model_->batch(Split::test, samples));
        model_->train();
    }
    describe_tensors();
    return std::nullopt;
}

std::optional<Error> TaskGradientEngine::probe_graph(const std::vector<std::uint32_t>& samples) {
    const std::vector<Task>& tasks = model_->tasks();
    model_->train();
    seed_streams(0);
    const auto losses = model_->losses(model_->batch(Split::training, samples));
    if (auto error = check_losses(name_, tasks, losses)) return error;
    const bool gated = !model_->gates_.empty() && model_->gates_.front()->enabled();
    if (gated) description_.gates = probe_gates(model_->gates_, tasks, losses, tensors_);
    if (auto error = probe_owners(name_, tasks, losses, tensors_)) return error;
    if (!representation_) return std::nullopt;
    Representation cut;
    auto trunk = probe_representation(name_, tasks, cut_losses(samples, cut), cut, tensors_);
    if (!trunk) return trunk.error();
    trunk_ = std::move(*trunk);
    return std::nullopt;
}

std::vector<torch::Tensor> TaskGradientEngine::cut_losses(const std::vector<std::uint32_t>& samples,
                                                          Representation& cut) {
    struct Cutting {
        Cutting(Model& at, Representation& cut) : model(at) { model.cut_ = &cut; }
        ~Cutting() { model.cut_ = nullptr; }
        Cutting(const Cutting&) = delete;
        Cutting& operator=(const Cutting&) = delete;
        Model& model;
    };
    const Cutting cutting(*model_, cut);
    return model_->losses(model_->batch(Split::training, samples));
}

void TaskGradientEngine::describe_tensors() {
    for (const ProbedTensor& tensor : tensors_) {
        description_.tensors.push_back(
            {tensor.name, tensor.value.sizes().vec(), tensor.owners, tensor.frozen});
    }
    for (Task& task : model_->tasks()) {
        description_.tasks.push_back(task.name);
        description_.metrics.push_back(model_->metric(task.id.value));
        owned_.emplace_back();
        for (std::size_t k = 0; k < tensors_.size(); ++k) {
            if (!tensors_[k].owners.contains(task.id)) continue;
            task.tensors.push_back(tensors_[k].name);
            const bool cut_off = std::find(trunk_.begin(), trunk_.end(), k) != trunk_.end();
            if (!cut_off) owned_.back().push_back(k);
        }
    }
}

std::optional<Error> TaskGradientEngine::open_logs(const std::string& folder) {
    if (folder.empty()) return std::nullopt;
    for (Task& task : model_->tasks()) {
        auto log = TaskLog::open(folder + "/" + task.name + ".log");
        if (!log) return log.error();
        task.log = std::move(*log);
        std::string tensors;
        for (const std::string& name : task.tensors) tensors += " " + name;
        task.log.write("task " + task.name + " id=" + std::to_string(task.id.value) +
                       " tensors:" + tensors);
    }
    return std::nullopt;
}

void TaskGradientEngine::seed_streams(std::uint64_t key) {
    seed_default_generator(key);
    for (Task& task : model_->tasks()) {
        task.stream = random_key(key, Purpose::task_stream, {task.id.value});
    }
}

// Found out by trying: whether the losses of one batch differ between keys.
bool TaskGradientEngine::draws(const std::vector<std::uint32_t>& samples) {
    const torch::NoGradGuard no_gradients;
    constexpr std::uint64_t kKeys = 4;
    std::vector<double> first;
    for (std::uint64_t key = 0; key < kKeys; ++key) {
        seed_streams(key);
        std::vector<double> losses;
        for (const torch::Tensor& loss : model_->losses(model_->batch(Split::training, samples))) {
            losses.push_back(loss.sum().item<double>());
        }
        if (key == 0) first = losses;
        const bool same = std::equal(
            losses.begin(), losses.end(), first.begin(), first.end(),
            [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); });
        if (!same) return true;
    }
    return false;
}

std::span<const float> TaskGradientEngine::tensor(std::size_t index) const {
    invariant(index < tensors_.size(), "a tensor is asked for by its index in the description");
    const torch::Tensor& value = tensors_[index].value;
    return {value.const_data_ptr<float>(), static_cast<std::size_t>(value.numel())};
}

void TaskGradientEngine::load(std::size_t index, std::size_t offset,
                              std::span<const std::byte> values) {
    invariant(index < tensors_.size(), "a tensor is loaded by its index in the description");
    torch::Tensor& value = tensors_[index].value;
    invariant(values.size() % sizeof(float) == 0 &&
                  offset + values.size() / sizeof(float) <= static_cast<std::size_t>(value.numel()),
              "values loaded lie inside their tensor");
    std::memcpy(value.data_ptr<float>() + offset, values.data(), values.size());
}

std::optional<Error> TaskGradientEngine::check(const GradientRequest& request) const {
    invariant(!request.tasks.empty() && (request.tasks.bits >> 1U) >> (owned_.size() - 1) == 0,
              "a computation is asked for tasks of the model");
    if (request.samples.empty()) {
        return fail(ErrorCode::bad_dataset, "a batch without samples; expected at least one");
    }
    for (const std::uint32_t sample : request.samples) {
        if (sample < description_.training_samples) continue;
        return fail(ErrorCode::bad_dataset, "sample " + std::to_string(sample) +
                                                " of a training set of " +
                                                std::to_string(description_.training_samples) +
                                                "; do all workers read the same data?");
    }
    return std::nullopt;
}

Result<GradientReport> TaskGradientEngine::gradients(const GradientRequest& request) {
    if (auto error = check(request)) return *error;
    const std::string doing = "model " + name_ + ", computing gradients";
    return catching(doing, [&]() -> Result<GradientReport> {
        fix_threads();
        model_->train();
        seed_streams(request.random_key);
        invariant(request.representation == representation_,
                  "gradients are asked for in the space the engine was made for");
        Representation cut;
        const auto losses = representation_
                                ? cut_losses(request.samples, cut)
                                : model_->losses(model_->batch(Split::training, request.samples));
        if (auto error = check_losses(name_, model_->tasks(), losses)) return *error;
        if (!representation_) return backwards(request, losses, nullptr);
        if (auto error = check_cut(name_, cut)) return *error;
        return backwards(request, losses, &cut);
    });
}

Result<GradientReport> TaskGradientEngine::backwards(const GradientRequest& request,
                                                     const std::vector<torch::Tensor>& losses,
                                                     const Representation* cut) {
    std::vector<Task>& tasks = model_->tasks();
    GradientReport report;
    report.losses.assign(tasks.size(), 0.0);
    std::size_t left = 0;
    for (const Task& task : tasks) {
        if (!request.tasks.contains(task.id)) continue;
        const double loss = losses[task.id.value].item<double>();
        if (!std::isfinite(loss)) {
            return fail(ErrorCode::not_finite, "the loss of task " + task.name + " is " +
                                                   std::to_string(loss) +
                                                   "; lower the learning rate, clip gradients, or "
                                                   "look for bad samples in the batch");
        }
        report.losses[task.id.value] = loss;
        ++left;
    }
    auto rows = std::make_shared<TorchRows>(tasks.size(), tensors_.size());
    if (cut != nullptr) {
        rows->output = cut->output;
        rows->at_output.resize(tasks.size());
    }
    for (Task& task : tasks) {
        if (!request.tasks.contains(task.id)) continue;
        if (request.cancelled && request.cancelled->load(std::memory_order_relaxed)) {
            return fail(ErrorCode::cancelled,
                        "the computation was cancelled before the backward "
                        "of task " +
                            task.name);
        }
        const TaskScope scope(task);
        const bool last = --left == 0;
        torch::autograd::variable_list owned;
        for (const std::size_t k : owned_[task.id.value]) owned.push_back(tensors_[k].value);
        if (cut != nullptr) owned.push_back(cut->leaf);
        const auto gradients = torch::autograd::grad({losses[task.id.value]}, owned, {},
                                                     /*retain_graph=*/!last,
                                                     /*create_graph=*/false, /*allow_unused=*/true);
        if (cut != nullptr) {
            owned.pop_back();
            if (gradients.back().defined()) {
                rows->at_output[task.id.value] = gradients.back().contiguous();
            }
        }
        for (std::size_t i = 0; i < owned.size(); ++i) {
            // A branch this batch did not take has a gradient of zero, not none.
            rows->at(task.id, owned_[task.id.value][i]) =
                gradients[i].defined() ? gradients[i].contiguous() : torch::zeros_like(owned[i]);
        }
        task.log.add_loss(report.losses[task.id.value]);
        if (request.task_done) request.task_done(task.id, *rows);
    }
    report.gradients = std::move(rows);
    return report;
}

Result<std::shared_ptr<const TrunkGradient>> TaskGradientEngine::trunk_gradient(
    const TaskGradients& of, std::span<const float> combined) {
    const auto* rows = dynamic_cast<const TorchRows*>(&of);
    invariant(rows != nullptr && rows->output.defined(),
              "the trunk's gradient is asked for of gradients that ended at its output");
    using Trunk = std::shared_ptr<const TrunkGradient>;
    return catching("model " + name_ + ", computing the trunk's gradient", [&]() -> Result<Trunk> {
        fix_threads();
        auto gradient = std::make_shared<TorchTrunk>(tensors_.size());
        torch::Tensor at_output = torch::zeros(rows->output.sizes(), torch::kFloat);
        invariant(
            combined.empty() || combined.size() == static_cast<std::size_t>(at_output.numel()),
            "a gradient at the trunk's output is as long as the output");
        std::copy(combined.begin(), combined.end(), at_output.data_ptr<float>());
        torch::autograd::variable_list trunk;
        for (const std::size_t k : trunk_) trunk.push_back(tensors_[k].value);
        const auto found = torch::autograd::grad({rows->output}, trunk, {at_output},
                                                 /*retain_graph=*/true,
                                                 /*create_graph=*/false, /*allow_unused=*/true);
        for (std::size_t i = 0; i < trunk.size(); ++i) {
            gradient->rows[trunk_[i]] =
                found[i].defined() ? found[i].contiguous() : torch::zeros_like(trunk[i]);
        }
        return gradient;
    });
}

Result<std::vector<TaskScore>> TaskGradientEngine::evaluate() {
    return catching("model " + name_ + ", evaluating", [&]() -> Result<std::vector<TaskScore>> {
        fix_threads();
        const torch::NoGradGuard no_gradients;
        model_->eval();
        seed_streams(0);
        std::vector<Score> sums(owned_.size(), Score{0, 0, 0, 0});
        std::vector<std::uint32_t> samples;
        for (std::uint64_t begin = 0; begin < description_.test_samples; begin += kScoreSamples) {
            samples.resize(std::min(kScoreSamples, description_.test_samples - begin));
            std::iota(samples.begin(), samples.end(), static_cast<std::uint32_t>(begin));
            const std::vector<Score> scores = model_->scores(model_->batch(Split::test, samples));
            invariant(scores.size() == sums.size(), "a model scores each of its tasks");
            for (std::size_t t = 0; t < sums.size(); ++t) {
                sums[t].hits += scores[t].hits;
                sums[t].count += scores[t].count;
                const double samples = scores[t].samples < 0 ? scores[t].count : scores[t].samples;
                sums[t].loss += scores[t].loss * samples;
                sums[t].samples += samples;
            }
        }
        std::vector<TaskScore> result;
        for (std::size_t t = 0; t < sums.size(); ++t) {
            const double samples = std::max(1.0, sums[t].samples);
            result.push_back({description_.tasks[t], sums[t].hits / std::max(1.0, sums[t].count),
                              sums[t].loss / samples, static_cast<std::uint64_t>(samples)});
        }
        return result;
    });
}

Engine* create_engine(const char* name, ModelFactory factory, const EngineOptions& options,
                      Error& error) {
    std::string plain = name;
    if (const auto colon = plain.rfind(':'); colon != std::string::npos) plain.erase(0, colon + 1);
    auto engine = TaskGradientEngine::create(plain, factory, options);
    if (engine) return engine->release();
    error = engine.error();
    return nullptr;
}

}  // namespace detente
