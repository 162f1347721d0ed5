// A model in plain C++ for tests: each task pulls a shared trunk and its own head towards targets
// of its own, ½‖w − target‖² plus noise drawn from the batch. Gradients are a function of (weights,
// samples, key). In representation space its trunk's output is the trunk's weights themselves, so
// that both spaces are one; with `gated` the trunk's gradients pass a gate.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "common/random.h"
#include "worker/engine.h"

namespace detente::test {

struct QuadraticOptions {
    std::size_t tasks = 2;
    std::size_t trunk_elements = 40;
    std::size_t head_elements = 6;  // per task; 0 = no heads
    std::size_t neck_elements = 0;  // a second layer, of all tasks but the last
    std::uint64_t samples = 640;
    double noise = 0.1;
    float gradient_factor = 1;  // what a Byzantine worker makes of its gradients …
    float head_factor = 1;      // … on its heads' besides …
    float gradient_offset = 0;  // … and adds to each element
    bool gated = false;
    float trunk_factor = 1;       // on what the trunk makes of a gradient at its output
    bool equal_elements = false;  // every element of a tensor gets the same gradient: shows tearing
};

class QuadraticGradients : public TaskGradients {
  public:
    std::vector<std::vector<std::vector<float>>> rows;  // task, tensor
    bool at_output = false;
    const float* gradient(TaskId task, std::size_t tensor) const override {
        const auto& row = rows[task.value][tensor];
        return row.empty() || (at_output && tensor == 0) ? nullptr : row.data();
    }
    std::span<const float> representation(TaskId task) const override {
        if (!at_output) return {};
        return rows[task.value][0];
    }
};

class QuadraticTrunk : public TrunkGradient {
  public:
    std::vector<float> row;
    const float* gradient(std::size_t tensor) const override {
        return tensor == 0 ? row.data() : nullptr;
    }
};

class QuadraticEngine : public Engine {
  public:
    explicit QuadraticEngine(QuadraticOptions options) : options_(options) {
        description_.model = "quadratic";
        description_.training_samples = options.samples;
        TaskSet everyone;
        for (std::uint32_t t = 0; t < options.tasks; ++t) {
            description_.tasks.push_back("task" + std::to_string(t));
            everyone.insert(TaskId{t});
        }
        add("trunk.weight", options.trunk_elements, everyone);
        TaskSet all_but_last = everyone;
        all_but_last.bits >>= 1U;
        if (options.neck_elements > 0) add("neck.weight", options.neck_elements, all_but_last);
        for (std::uint32_t t = 0; options.head_elements > 0 && t < options.tasks; ++t) {
            TaskSet only;
            only.insert(TaskId{t});
            add("head" + std::to_string(t) + ".weight", options.head_elements, only);
        }
        for (std::uint32_t t = 0; options.gated && t < options.tasks; ++t) {
            TaskSet only;
            only.insert(TaskId{t});
            const auto tensor = static_cast<std::uint32_t>(tensors_.size());
            add("gates.trunk." + description_.tasks[t], 1, only);
            tensors_.back().front() = -1;
            description_.gates.push_back({tensor, TaskId{t}, {0}});
        }
    }

    const ModelDescription& description() const override { return description_; }
    std::span<const float> tensor(std::size_t index) const override { return tensors_[index]; }
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> values) override {
        std::memcpy(tensors_[index].data() + offset, values.data(), values.size());
    }

    Result<GradientReport> gradients(const GradientRequest& request) override {
        auto held = std::make_shared<QuadraticGradients>();
        GradientReport report;
        for (std::uint32_t task = 0; task < options_.tasks; ++task) {
            double loss = 0;
            auto& rows = held->rows.emplace_back(tensors_.size());
            if (!request.tasks.empty() && !request.tasks.contains(TaskId{task})) {
                report.losses.push_back(0);
                continue;
            }
            ++backwards;
            for (std::size_t tensor = 0; tensor < tensors_.size(); ++tensor) {
                if (!description_.tensors[tensor].owners.contains(TaskId{task})) continue;
                if (is_gate(tensor)) {
                    rows[tensor].push_back(0);
                    continue;
                }
                Random random(random_key(request.random_key, Purpose::test, {task, tensor}));
                float shared_noise = static_cast<float>(options_.noise * random.normal());
                for (std::size_t i = 0; i < tensors_[tensor].size(); ++i) {
                    if (!options_.equal_elements && i > 0) {
                        shared_noise = static_cast<float>(options_.noise * random.normal());
                    }
                    const float target =
                        options_.equal_elements
                            ? static_cast<float>(task)
                            : static_cast<float>((task + 1) * ((i + tensor) % 5)) * 0.25F - 0.5F;
                    const float error = tensors_[tensor][i] - target;
                    loss += 0.5 * static_cast<double>(error) * error;
                    const float factor =
                        options_.gradient_factor * (tensor > 0 ? options_.head_factor : 1.0F);
                    rows[tensor].push_back(factor * (error + shared_noise) +
                                           options_.gradient_offset);
                }
            }
            if (options_.gated) {
                const float a = tensors_[description_.gates[task].tensor].front();
                for (float& value : rows[0]) value /= 1 + std::exp(-a);
            }
            report.losses.push_back(loss);
        }
        held->at_output = request.representation;
        report.gradients = std::move(held);
        return report;
    }

    Result<std::shared_ptr<const TrunkGradient>> trunk_gradient(
        const TaskGradients& /*of*/, std::span<const float> combined) override {
        auto trunk = std::make_shared<QuadraticTrunk>();
        for (const float value : combined) trunk->row.push_back(value * options_.trunk_factor);
        return trunk;
    }

    Result<std::vector<TaskScore>> evaluate() override { return std::vector<TaskScore>{}; }

    std::uint64_t backwards = 0;  // made so far

  private:
    bool is_gate(std::size_t tensor) const {
        return description_.tensors[tensor].name.rfind("gates.", 0) == 0;
    }
    void add(const std::string& name, std::size_t elements, TaskSet owners) {
        description_.tensors.push_back(
            {name, {static_cast<std::int64_t>(elements)}, owners, false});
        std::vector<float> values(elements, 1.0F);
        if (!options_.equal_elements) {
            Random random(random_key(3, Purpose::initial_weights, {tensors_.size()}));
            for (float& value : values) value = static_cast<float>(random.normal());
        }
        tensors_.push_back(std::move(values));
    }

    QuadraticOptions options_;
    ModelDescription description_;
    std::vector<std::vector<float>> tensors_;
};

}  // namespace detente::test
