// Engines under strided masks: what is loaded, and what comes back.
#include <catch2/catch.hpp>
#include <map>
#include <numeric>

#include "tests/sim/quadratic_engine.h"
#include "worker/engine_computer.h"
#include "worker/stored_order_engine.h"

namespace detente {
namespace {

using test::QuadraticEngine;
using test::QuadraticOptions;

std::shared_ptr<const Plan> strided_plan(const ModelDescription& model) {
    Job job;
    job.masks = {{"trunk.*", 0.25, ExclusiveParts::strided}};
    auto plan = make_plan(model, job);
    REQUIRE(plan.has_value());
    return std::make_shared<const Plan>(std::move(*plan));
}

QuadraticOptions options() {
    QuadraticOptions options;
    options.trunk_elements = 2051;
    options.tasks = 3;
    return options;
}

Payload payload_of_floats(const std::vector<float>& values) {
    return copy_of(std::as_bytes(std::span(values)));
}

std::vector<float> floats_of(const Payload& payload) {
    std::vector<float> values(payload.size() / sizeof(float));
    std::memcpy(values.data(), payload.bytes.data(), payload.size());
    return values;
}

TEST_CASE("stored order: an engine whose tensors are stored as they lie is left as it is") {
    auto engine = std::make_unique<QuadraticEngine>(options());
    const Engine* own = engine.get();
    auto plan = make_plan(engine->description(), Job{});
    REQUIRE(plan.has_value());
    CHECK(in_stored_order(std::move(engine), *plan).get() == own);
}

TEST_CASE("stored order: first weights are each block's own elements") {
    const QuadraticEngine plain(options());
    const auto plan = strided_plan(plain.description());
    EngineComputer computer(std::make_unique<QuadraticEngine>(options()), plan, 1);
    const std::atomic<bool> never{false};
    std::size_t seen = 0;
    REQUIRE(computer
                .run(InitialWork{}, never,
                     [&](std::uint32_t id, const Payload& payload) {
                         const Block& block = plan->block(BlockId{id});
                         const std::vector<float> values = floats_of(payload);
                         REQUIRE(values.size() == block.elements);
                         for (std::size_t k = 0; k < values.size(); ++k) {
                             const std::size_t element = block.first + k * block.stride;
                             REQUIRE(values[k] == plain.tensor(block.tensor)[element]);
                         }
                         ++seen;
                     })
                .has_value());
    CHECK(seen == plan->blocks.size());
}

TEST_CASE("stored order: gradients are computed at the weights that were loaded block by block") {
    QuadraticEngine plain(options());
    const auto plan = strided_plan(plain.description());
    EngineComputer computer(std::make_unique<QuadraticEngine>(options()), plan, 1);
    const std::atomic<bool> never{false};
    GradientWork work;
    work.batch = {0, 0, 1};
    work.batch_samples = 16;
    work.random_key = 77;
    work.tasks.bits = 7;
    for (const Block& block : plan->blocks) {
        std::vector<float> values(block.elements);
        std::iota(values.begin(), values.end(), static_cast<float>(block.id.value) * 0.5F);
        for (std::size_t k = 0; k < values.size(); ++k) {
            plain.load(block.tensor, block.first + k * block.stride,
                       std::as_bytes(std::span(values).subspan(k, 1)));
        }
        work.weights.push_back(
            {block.id, Epoch{1}, Version{0}, payload_of_floats(values), std::nullopt});
    }
    auto outcome = computer.run(work, never, {});
    REQUIRE(outcome.has_value());
    const auto& gradients = std::get<GradientOutcome>(*outcome);
    GradientRequest request;
    request.random_key = work.random_key;
    request.tasks = work.tasks;
    const auto wanted = plain.gradients(request);
    REQUIRE(wanted.has_value());
    CHECK(gradients.losses == wanted->losses);

    CombineWork combine;
    combine.gradients = gradients.gradients;
    combine.weights = {1.0, 10.0, 100.0};
    for (const Block& block : plan->blocks) combine.layout.push_back({block.id});
    const auto combined = computer.run(combine, never, [&](std::uint32_t i, const Payload& part) {
        const Block& block = plan->blocks[i];
        const std::vector<float> values = floats_of(part);
        for (std::size_t k = 0; k < values.size(); ++k) {
            double sum = 0;
            for (std::uint32_t task = 0; task < 3; ++task) {
                if (!block.owners.contains(TaskId{task})) continue;
                const float* row = wanted->gradients->gradient(TaskId{task}, block.tensor);
                const double weight = block.shared() ? combine.weights[task] : 1;
                sum += weight * static_cast<double>(row[block.first + k * block.stride]);
            }
            REQUIRE(values[k] == Approx(sum).epsilon(1e-5).margin(1e-3));
        }
    });
    CHECK(combined.has_value());
}

TEST_CASE("stored order: what a task tells as soon as it is done is carried over too") {
    QuadraticEngine plain(options());
    const auto plan = strided_plan(plain.description());

    // Tells each task as it is done, as LibTorch's engine does.
    class Telling : public QuadraticEngine {
      public:
        using QuadraticEngine::QuadraticEngine;
        Result<GradientReport> gradients(const GradientRequest& request) override {
            auto report = QuadraticEngine::gradients(request);
            for (std::uint32_t task = 0; task < 3; ++task) {
                request.task_done(TaskId{task}, *report->gradients);
            }
            return report;
        }
    };
    const auto engine = in_stored_order(std::make_unique<Telling>(options()), *plan);
    std::map<std::uint32_t, std::vector<float>> told;
    GradientRequest request;
    request.tasks.bits = 7;
    request.task_done = [&](TaskId task, const TaskGradients& rows) {
        const float* row = rows.gradient(task, 0);
        told[task.value].assign(row, row + options().trunk_elements);
    };
    const auto report = engine->gradients(request);
    REQUIRE(report.has_value());
    for (std::uint32_t task = 0; task < 3; ++task) {
        const float* row = report->gradients->gradient(TaskId{task}, 0);
        CHECK(told[task] == std::vector<float>(row, row + options().trunk_elements));
        CHECK(report->gradients->gradient(TaskId{task}, 1 + (task + 1) % 3) == nullptr);
    }
}

}  // namespace
}  // namespace detente
