// One worker and plain gradient descent in the place of servers, over a LibTorch model.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/config.h"
#include "tests/torch/toy_models.h"
#include "worker/engine_computer.h"
#include "worker/resolver.h"

namespace detente::toy {

inline Job lone_job(const std::string& method = "sum", double learning_rate = 0.5) {
    Job job;
    job.batch_samples = 16;
    job.rule.name = "sgd";
    job.rule.learning_rate = learning_rate;
    job.aggregator.name = method;
    return job;
}

inline EngineOptions options_for(const Job& job) {
    EngineOptions options;
    options.seed = job.seed;
    options.frozen = job.frozen;
    options.gates = job.gates_enabled;
    options.gate_initial = job.gate_initial;
    options.representation = job.conflict_space == ConflictSpace::representation;
    return options;
}

class LoneWorker {
  public:
    using Rows = std::map<std::string, std::vector<float>>;  // by tensor

    LoneWorker(std::unique_ptr<Engine> engine, const Job& job)
        : job_(job),
          plan_(std::make_shared<Plan>(*make_plan(engine->description(), job))),
          computer_(std::move(engine), plan_, job.seed, true),
          resolver_(*Resolver::create(job, computer_.engine().description().tasks.size())) {
        REQUIRE(computer_.use_methods_of(job).has_value());
        for (const Block& block : plan_->blocks) {
            REQUIRE(block.offset == 0);  // a tensor is one block
            const auto values = computer_.engine().tensor(block.tensor);
            weights[name_of(block)] = {values.begin(), values.end()};
        }
    }

    // The gradients of one batch, at the weights held here.
    GradientOutcome compute(std::uint32_t batch) {
        GradientWork work;
        for (const Block& block : plan_->blocks) {
            const std::vector<float>& values = weights.at(name_of(block));
            work.weights.push_back(
                {block.id, Epoch{1}, Version{0}, copy_of(std::as_bytes(std::span(values))), {}});
        }
        work.batch = {0, batch, 1};
        work.batch_samples = job_.batch_samples;
        work.random_key = 77 + batch;
        for (std::uint32_t task = 0; task < computer_.engine().description().tasks.size(); ++task) {
            work.tasks.insert(TaskId{task});
        }
        resolver_.prepare(work);
        auto result = computer_.run(work, never_, {});
        INFO((result ? "" : result.error().text));
        REQUIRE(result.has_value());
        return std::move(std::get<GradientOutcome>(*result));
    }
    // What would be pushed.
    Rows combine(GradientOutcome&& outcome) {
        hash = outcome.gradient_hash;
        auto work = resolver_.resolve(std::move(outcome), 5);
        REQUIRE(work.has_value());
        std::vector<const Block*> pushed;
        for (const Block& block : plan_->blocks) {
            if (!block.trainable()) continue;
            work->layout.push_back({block.id});
            pushed.push_back(&block);
        }
        Rows rows;
        const auto keep = [&](std::uint32_t i, const Payload& payload) {
            std::vector<float>& row = rows[name_of(*pushed[i])];
            row.resize(payload.size() / sizeof(float));
            std::memcpy(row.data(), payload.bytes.data(), payload.size());
        };
        const auto done = computer_.run(*work, never_, keep);
        INFO((done ? "" : done.error().text));
        REQUIRE(done.has_value());
        return rows;
    }
    // One step of gradient descent.
    Rows step(std::uint32_t batch) {
        Rows rows = combine(compute(batch));
        for (auto& [name, row] : rows) {
            std::vector<float>& values = weights.at(name);
            for (std::size_t e = 0; e < row.size(); ++e) {
                values[e] -= static_cast<float>(job_.rule.learning_rate) * row[e];
            }
        }
        return rows;
    }
    const ModelDescription& description() { return computer_.engine().description(); }
    std::vector<std::uint32_t> samples_of(std::uint32_t batch) {
        SampleOrders orders(job_.seed, description().training_samples);
        const auto order = orders.order_of(0);
        const auto first = order->begin() + std::ptrdiff_t{batch} * job_.batch_samples;
        return {first, first + job_.batch_samples};
    }

    Rows weights;
    std::uint64_t hash = 0;  // of the gradients combined last

  private:
    std::string name_of(const Block& block) {
        return computer_.engine().description().tensors[block.tensor].name;
    }

    Job job_;
    std::shared_ptr<const Plan> plan_;
    EngineComputer computer_;
    Resolver resolver_;
    std::atomic<bool> never_{false};
};

template <class M>
LoneWorker lone_worker(const Job& job) {
    auto engine = TaskGradientEngine::create("Toy", &make_model<M>, options_for(job));
    INFO((engine ? "" : engine.error().text));
    REQUIRE(engine.has_value());
    return LoneWorker(std::move(*engine), job);
}

// A model of the same kind in double, at these weights; its gates pass everything as it is.
template <class M>
std::shared_ptr<M> in_double(const LoneWorker::Rows& weights) {
    const EngineOptions options;
    auto model = std::make_shared<M>(ModelOptions(options));
    model->to(torch::kDouble);
    const torch::NoGradGuard no_gradients;
    for (const auto& parameter : model->named_parameters()) {
        const std::vector<float>& values = weights.at(parameter.key());
        parameter.value().copy_(
            torch::tensor(values, torch::kFloat).view(parameter.value().sizes()));
    }
    return model;
}

// The losses of a batch, in double; a graph for each.
inline std::vector<torch::Tensor> losses_of(Model& model,
                                            const std::vector<std::uint32_t>& samples) {
    Batch batch = model.batch(Split::training, samples);
    for (torch::Tensor& input : batch.inputs) input = input.to(torch::kDouble);
    return model.losses(batch);
}

}  // namespace detente::toy
