#include "worker/stored_order_engine.h"

#include <cstring>
#include <map>
#include <utility>

#include "common/partition/stored_order.h"

namespace detente {
namespace {

// Rows of `of`, those of tensors that are stored otherwise carried over.
class StoredRows final : public TaskGradients {
  public:
    StoredRows(const TaskGradients& of, TaskSet tasks, const StoredOrder& order,
               const ModelDescription& model)
        : of_(of) {
        for (const std::size_t tensor : order.moved()) {
            for (std::uint32_t task = 0; task < model.tasks.size(); ++task) {
                const float* own =
                    tasks.contains(TaskId{task}) ? of.gradient(TaskId{task}, tensor) : nullptr;
                if (own == nullptr) continue;
                std::vector<float>& row = rows_[{task, tensor}];
                row.resize(model.tensors[tensor].elements());
                order.store(tensor, own, row);
            }
        }
    }
    void keep(std::shared_ptr<const TaskGradients> alive) { alive_ = std::move(alive); }

    const float* gradient(TaskId task, std::size_t tensor) const override {
        const auto found = rows_.find({task.value, tensor});
        return found == rows_.end() ? of_.gradient(task, tensor) : found->second.data();
    }

  private:
    const TaskGradients& of_;
    std::shared_ptr<const TaskGradients> alive_;
    std::map<std::pair<std::uint32_t, std::size_t>, std::vector<float>> rows_;
};

class StoredOrderEngine final : public Engine {
  public:
    StoredOrderEngine(std::unique_ptr<Engine> engine, StoredOrder order)
        : engine_(std::move(engine)), order_(std::move(order)) {
        for (const std::size_t tensor : order_.moved()) {
            const std::span<const float> own = engine_->tensor(tensor);
            stored_[tensor].resize(own.size());
            order_.store(tensor, own.data(), stored_[tensor]);
        }
    }

    const ModelDescription& description() const override { return engine_->description(); }
    std::span<const float> tensor(std::size_t index) const override {
        const auto stored = stored_.find(index);
        return stored == stored_.end() ? engine_->tensor(index) : stored->second;
    }
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> values) override {
        const auto stored = stored_.find(index);
        if (stored == stored_.end()) return engine_->load(index, offset, values);
        std::memcpy(stored->second.data() + offset, values.data(), values.size());
        changed_ = true;
    }
    Result<GradientReport> gradients(const GradientRequest& request) override {
        hand_over();
        GradientRequest own = request;
        if (request.task_done) {
            own.task_done = [&](TaskId task, const TaskGradients& rows) {
                TaskSet one;
                one.insert(task);
                request.task_done(task, StoredRows(rows, one, order_, description()));
            };
        }
        auto report = engine_->gradients(own);
        if (!report) return report;
        auto rows =
            std::make_shared<StoredRows>(*report->gradients, request.tasks, order_, description());
        rows->keep(std::move(report->gradients));
        report->gradients = std::move(rows);
        return report;
    }
    Result<std::vector<TaskScore>> evaluate() override {
        hand_over();
        return engine_->evaluate();
    }
    bool draws_from_shared_generator() const override {
        return engine_->draws_from_shared_generator();
    }

  private:
    // Many blocks are loaded one by one: their tensors are carried over once.
    void hand_over() {
        if (!changed_) return;
        std::vector<float> own;
        for (const auto& [tensor, values] : stored_) {
            own.resize(values.size());
            order_.restore(tensor, values, own.data());
            engine_->load(tensor, 0, std::as_bytes(std::span<const float>(own)));
        }
        changed_ = false;
    }

    std::unique_ptr<Engine> engine_;
    StoredOrder order_;
    std::map<std::size_t, std::vector<float>> stored_;
    bool changed_ = false;  // since the engine was last given them
};

}  // namespace

std::unique_ptr<Engine> in_stored_order(std::unique_ptr<Engine> engine, const Plan& plan) {
    StoredOrder order(plan);
    if (!order.any()) return engine;
    return std::make_unique<StoredOrderEngine>(std::move(engine), std::move(order));
}

}  // namespace detente
