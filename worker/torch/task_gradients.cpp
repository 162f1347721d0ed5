#include "worker/torch/task_gradients.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "common/invariant.h"
#include "common/nearest_name.h"
#include "common/random.h"
#include "worker/torch/catching.h"
#include "worker/torch/gate_graph.h"
#include "worker/torch/generator.h"

namespace detente {

namespace {

constexpr std::uint32_t kProbeSamples = 8;
constexpr std::uint64_t kScoreSamples = 256;

}  // namespace

TaskGradientEngine::TaskGradientEngine(std::string name, const EngineOptions& options)
    : name_(std::move(name)), threads_(options.threads) {}

Result<std::unique_ptr<TaskGradientEngine>> TaskGradientEngine::create(
    const std::string& name, ModelFactory factory, const EngineOptions& options,
    std::optional<Accelerator> accelerator) {
    const std::string doing = "model " + name + ", made and tried on a few samples";
    return catching(doing, [&]() -> Result<std::unique_ptr<TaskGradientEngine>> {
        // First: LibTorch decides once, at the first backward or sooner, which devices there are.
        if (!accelerator && options.device != "cpu") {
            auto found = find_accelerator(options.device);
            if (!found) return found.error();
            accelerator = std::move(*found);
        }
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
        if (accelerator) engine->move_to(std::move(*accelerator));
        if (engine->streams_) {
            if (auto error = engine->try_device()) return *error;
        }
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
    std::vector<std::uint32_t> samples = probe_samples();
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
    return model_->losses(batch(samples));
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

// A few numbers, which are read on the host at every backward: they stay there.
bool TaskGradientEngine::is_of_gate(const torch::Tensor& value) const {
    for (const auto& gate : model_->gates_) {
        for (const torch::Tensor& one : gate->values()) {
            if (one.unsafeGetTensorImpl() == value.unsafeGetTensorImpl()) return true;
        }
    }
    return false;
}

void TaskGradientEngine::move_to(Accelerator accelerator) {
    description_.versions += ", on " + accelerator.name;
    streams_ = std::make_unique<DeviceStreams>(std::move(accelerator), owned_.size());
    model_->streams_ = streams_.get();
    const DeviceStreams::Scope scope(*streams_);
    std::vector<torch::Tensor> values;
    for (const ProbedTensor& tensor : tensors_) {
        values.push_back(is_of_gate(tensor.value) ? torch::Tensor() : tensor.value);
    }
    weights_ = std::make_unique<DeviceWeights>(*streams_, std::move(values));
}

// What a model made that is no parameter has stayed on the host: found here, not in training.
std::optional<Error> TaskGradientEngine::try_device() {
    GradientRequest request;
    request.samples = probe_samples();
    for (const Task& task : model_->tasks()) request.tasks.insert(task.id);
    request.representation = representation_;
    const auto tried = gradients(request);
    if (tried || tried.error().code == ErrorCode::not_finite) return std::nullopt;
    return fail(tried.error().code,
                tried.error().text + " (on " + streams_->accelerator().name +
                    "; parameters and batches are there, and what the model makes otherwise must "
                    "be made there too: on batch.input().device())");
}

std::vector<std::uint32_t> TaskGradientEngine::probe_samples() const {
    std::vector<std::uint32_t> samples(
        std::min<std::uint64_t>(kProbeSamples, description_.training_samples));
    std::iota(samples.begin(), samples.end(), 0U);
    return samples;
}

Batch TaskGradientEngine::batch(std::span<const std::uint32_t> samples) {
    Batch batch = model_->batch(Split::training, samples);
    if (!streams_) return batch;
    for (auto* tensors : {&batch.inputs, &batch.targets}) {
        for (torch::Tensor& tensor : *tensors) tensor = streams_->to_device(tensor);
    }
    return batch;
}

void TaskGradientEngine::seed_streams(std::uint64_t key) {
    seed_default_generator(key, device());
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
    if (weights_ && weights_->holds(index)) return weights_->host(index);
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
    if (weights_ && weights_->holds(index)) return weights_->load(index, offset, values);
    std::memcpy(value.data_ptr<float>() + offset, values.data(), values.size());
}

Result<std::vector<TaskScore>> TaskGradientEngine::evaluate() {
    return catching("model " + name_ + ", evaluating", [&]() -> Result<std::vector<TaskScore>> {
        if (streams_) {
            return fail(ErrorCode::not_supported,
                        "model " + name_ + " is on " + streams_->accelerator().name +
                            "; it is scored on the processor, by an engine of its own");
        }
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
