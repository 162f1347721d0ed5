#include "worker/torch/model.h"

#include <torch/nn/functional/loss.h>

#include <algorithm>
#include <charconv>

#include "worker/torch/generator.h"

namespace detente {

namespace {

[[noreturn]] void refuse_option(const std::string& key, const std::string& value,
                                const char* expected) {
    throw std::invalid_argument("[model.options] " + key + " = \"" + value + "\": expected " +
                                expected);
}

template <class Number>
Number number_of(const std::string& key, const std::string& value, const char* expected) {
    Number number{};
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size()) {
        refuse_option(key, value, expected);
    }
    return number;
}

bool is_plain(const std::string& name) {
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
}

}  // namespace

const std::string* ModelOptions::find(const std::string& key) const {
    asked_.insert(key);
    for (const auto& [name, value] : options_.options) {
        if (name == key) return &value;
    }
    return nullptr;
}

std::string ModelOptions::text(const std::string& key, const std::string& fallback) const {
    const std::string* value = find(key);
    return value ? *value : fallback;
}

std::int64_t ModelOptions::integer(const std::string& key, std::int64_t fallback) const {
    const std::string* value = find(key);
    return value ? number_of<std::int64_t>(key, *value, "a whole number") : fallback;
}

double ModelOptions::real(const std::string& key, double fallback) const {
    const std::string* value = find(key);
    return value ? number_of<double>(key, *value, "a number") : fallback;
}

bool ModelOptions::flag(const std::string& key, bool fallback) const {
    const std::string* value = find(key);
    if (!value) return fallback;
    if (*value != "true" && *value != "false") refuse_option(key, *value, "true or false");
    return *value == "true";
}

std::vector<std::string> ModelOptions::unread() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : options_.options) {
        if (!asked_.contains(key)) keys.push_back(key);
    }
    return keys;
}

std::vector<std::string> ModelOptions::known() const { return {asked_.begin(), asked_.end()}; }

std::vector<torch::Tensor> Model::losses(const Batch& batch) {
    const std::vector<torch::Tensor> outputs = forward(batch);
    if (outputs.size() != tasks_.size() || batch.targets.size() != tasks_.size()) {
        throw std::logic_error("forward() returned " + std::to_string(outputs.size()) +
                               " outputs and the batch holds " +
                               std::to_string(batch.targets.size()) + " targets for " +
                               std::to_string(tasks_.size()) +
                               " tasks; return one output and give one target per task");
    }
    return each_task([&](std::size_t t) { return loss(t, outputs[t], batch.targets[t]); });
}

// LibTorch's own words for targets of the wrong kind name neither the task nor the cure.
torch::Tensor Model::loss(std::size_t task, const torch::Tensor& output,
                          const torch::Tensor& target) {
    const auto type = target.scalar_type();
    const bool classes = type == torch::kLong || type == torch::kByte;
    const bool shares = target.is_floating_point() && target.sizes() == output.sizes();
    if (!classes && !shares) {
        throw std::invalid_argument("task " + tasks_.at(task).name + ": its targets are " +
                                    c10::toString(type) +
                                    "; the default loss, cross entropy, takes class numbers "
                                    "(torch::kLong); convert them, or override loss()");
    }
    return torch::nn::functional::cross_entropy(output, target);
}

Score Model::score(std::size_t task, const torch::Tensor& output, const torch::Tensor& target) {
    if (target.is_floating_point()) {
        throw std::invalid_argument("task " + tasks_.at(task).name + ": its targets are " +
                                    c10::toString(target.scalar_type()) +
                                    " and no class numbers, so the default score, accuracy, means "
                                    "nothing; override score()");
    }
    const torch::Tensor hits = output.argmax(1).eq(target).sum();
    return {static_cast<double>(hits.item<std::int64_t>()), static_cast<double>(target.numel())};
}

std::vector<Score> Model::scores(const Batch& batch) {
    const std::vector<torch::Tensor> outputs = forward(batch);
    std::vector<Score> scores;
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
        const TaskScope scope(tasks_[t]);
        scores.push_back(score(t, outputs.at(t), batch.targets.at(t)));
        scores.back().loss = loss(t, outputs[t], batch.targets[t]).item<double>();
    }
    return scores;
}

const Batch& Model::held(Split split) const {
    const Batch& batch = held_[static_cast<int>(split)];
    if (batch.inputs.empty()) {
        throw std::logic_error(std::string("no ") +
                               (split == Split::training ? "training" : "test") +
                               " samples: call set_samples() in the constructor, or override "
                               "samples() and batch()");
    }
    return batch;
}

std::uint64_t Model::samples(Split split) const {
    return static_cast<std::uint64_t>(held(split).inputs.front().size(0));
}

Batch Model::batch(Split split, std::span<const std::uint32_t> samples) {
    const Batch& all = held(split);
    torch::Tensor rows = torch::empty({static_cast<std::int64_t>(samples.size())}, torch::kLong);
    std::copy(samples.begin(), samples.end(), rows.data_ptr<std::int64_t>());
    Batch batch;
    for (const torch::Tensor& input : all.inputs) {
        batch.inputs.push_back(input.index_select(0, rows));
    }
    for (const torch::Tensor& target : all.targets) {
        batch.targets.push_back(target.index_select(0, rows));
    }
    return batch;
}

void Model::set_samples(Split split, std::vector<torch::Tensor> inputs,
                        std::vector<torch::Tensor> targets) {
    if (inputs.size() != 1 && inputs.size() != targets.size()) {
        throw std::logic_error("set_samples: " + std::to_string(inputs.size()) + " inputs and " +
                               std::to_string(targets.size()) +
                               " targets; give one input, or one per target");
    }
    const std::int64_t rows = inputs.front().size(0);
    for (const auto* tensors : {&inputs, &targets}) {
        for (const torch::Tensor& tensor : *tensors) {
            if (tensor.size(0) == rows) continue;
            throw std::logic_error("set_samples: one tensor has " + std::to_string(rows) +
                                   " rows, another " + std::to_string(tensor.size(0)) +
                                   "; a sample is the same row of each");
        }
    }
    held_[static_cast<int>(split)] = {std::move(inputs), std::move(targets)};
}

void Model::add_task(const std::string& name) {
    if (!is_plain(name)) {
        throw std::logic_error("add_task(\"" + name +
                               "\"): a task's name is letters, digits, '_' and '-'");
    }
    for (const Task& task : tasks_) {
        if (task.name == name) {
            throw std::logic_error("add_task(\"" + name + "\"): there is such a task already");
        }
    }
    if (tasks_.size() == kMaxTasks) throw std::logic_error("add_task: more than 64 tasks");
    Task task;
    task.id = TaskId{static_cast<std::uint32_t>(tasks_.size())};
    task.name = name;
    tasks_.push_back(std::move(task));
    heads_.resize(tasks_.size());
}

void Model::add_head(const std::string& name, std::shared_ptr<torch::nn::Module> module,
                     Head head) {
    add_task(name);
    if (!heads_module_) {
        heads_module_ = register_module("heads", std::make_shared<torch::nn::Module>("heads"));
    }
    heads_module_->register_module(name, std::move(module));
    heads_.back() = std::move(head);
}

Gate Model::add_gate(const std::string& name) {
    if (!is_plain(name)) {
        throw std::logic_error("add_gate(\"" + name +
                               "\"): a gate's name is letters, digits, '_' and '-'");
    }
    for (const auto& gate : gates_) {
        if (gate->name() == name) {
            throw std::logic_error("add_gate(\"" + name + "\"): there is such a gate already");
        }
    }
    gates_.push_back(std::make_shared<GateParameters>(name));
    return Gate(gates_.back());
}

torch::Tensor Model::head(std::size_t task, const torch::Tensor& shared) {
    if (!heads_.at(task)) {
        throw std::logic_error("task " + tasks_[task].name +
                               " was added without a head; give add_task one");
    }
    return heads_[task](shared);
}

std::vector<torch::Tensor> Model::heads(const torch::Tensor& shared) {
    const torch::Tensor given = cut_ == nullptr ? shared : cut_->cut(shared);
    return each_task([&](std::size_t t) { return head(t, given); });
}

std::vector<torch::Tensor> Model::each_task(const std::function<torch::Tensor(std::size_t)>& part) {
    std::vector<torch::Tensor> results;
    results.reserve(tasks_.size());
    DeviceStreams::Fork fork(streams_);
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
        const TaskScope scope(tasks_[t]);
        fork.enter(tasks_[t].id);
        if (is_training()) {
            seed_default_generator(tasks_[t].stream,
                                   streams_ == nullptr ? c10::kCPU : streams_->device());
        }
        results.push_back(part(t));
    }
    return results;
}

}  // namespace detente
