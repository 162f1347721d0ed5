#include "worker/in_step_rows.h"

#include <cstring>
#include <map>
#include <utility>

#include "common/invariant.h"

namespace detente {
namespace {

class Overlaid final : public TaskGradients {
  public:
    Overlaid(std::shared_ptr<const TaskGradients> own, std::vector<Payload> averages,
             std::vector<float> zeros)
        : own_(std::move(own)), averages_(std::move(averages)), zeros_(std::move(zeros)) {}

    const float* zeros() const { return zeros_.data(); }
    void lay(TaskId task, std::size_t tensor, const float* row) { rows_[{task, tensor}] = row; }

    const float* gradient(TaskId task, std::size_t tensor) const override {
        const auto found = rows_.find({task, tensor});
        return found == rows_.end() ? own_->gradient(task, tensor) : found->second;
    }
    std::span<const float> representation(TaskId task) const override {
        return own_->representation(task);
    }

  private:
    std::shared_ptr<const TaskGradients> own_;
    std::vector<Payload> averages_;
    std::vector<float> zeros_;
    std::map<std::pair<TaskId, std::size_t>, const float*> rows_;
};

// Floats at an address for floats.
Payload aligned(const Payload& payload) {
    if (reinterpret_cast<std::uintptr_t>(payload.bytes.data()) % alignof(float) == 0)
        return payload;
    return copy_of(payload.bytes);
}

}  // namespace

InStepRows::InStepRows(const Plan& plan, std::size_t tasks) : rows_(tasks) {
    std::map<std::uint32_t, std::pair<std::uint64_t, TaskSet>> tensors;  // elements, owners
    for (const Block& block : plan.blocks) {
        if (!block.in_step) continue;
        if (block.trainable()) blocks_.push_back(block.id);
        auto& [elements, owners] = tensors[block.tensor];
        elements += block.elements;
        owners.bits |= block.owners.bits;
    }
    for (const auto& [tensor, described] : tensors) {
        for (std::uint32_t task = 0; task < tasks; ++task) {
            if (!described.second.contains(TaskId{task})) continue;
            Row& row = rows_[task];
            row.stretches.push_back({tensor, described.first, row.elements});
            row.elements += described.first;
        }
    }
}

Payload InStepRows::pack(TaskId task, const TaskGradients& gradients) const {
    const Row& row = rows_[task.value];
    auto packed = std::make_shared<AlignedBuffer>(row.elements * sizeof(float));
    for (const Stretch& stretch : row.stretches) {
        const float* from = gradients.gradient(task, stretch.tensor);
        float* to = packed->floats().data() + stretch.at;
        if (from == nullptr) {
            std::memset(to, 0, stretch.elements * sizeof(float));
        } else {
            std::memcpy(to, from, stretch.elements * sizeof(float));
        }
    }
    return payload_of(std::move(packed));
}

std::shared_ptr<const TaskGradients> InStepRows::overlay(std::shared_ptr<const TaskGradients> own,
                                                         std::vector<Payload> averages) const {
    invariant(averages.size() == rows_.size(), "a node's averages are there for every task");
    std::uint64_t longest = 0;
    for (std::size_t task = 0; task < rows_.size(); ++task) {
        if (averages[task].empty()) {
            for (const Stretch& s : rows_[task].stretches) longest = std::max(longest, s.elements);
            continue;
        }
        invariant(averages[task].size() == rows_[task].elements * sizeof(float),
                  "an average is as long as the rows it is of");
        averages[task] = aligned(averages[task]);
    }
    const std::vector<Payload> kept = averages;
    auto over = std::make_shared<Overlaid>(std::move(own), std::move(averages),
                                           std::vector<float>(longest, 0.0F));
    for (std::uint32_t task = 0; task < rows_.size(); ++task) {
        const auto* first = reinterpret_cast<const float*>(kept[task].bytes.data());
        for (const Stretch& stretch : rows_[task].stretches) {
            over->lay(TaskId{task}, stretch.tensor,
                      kept[task].empty() ? over->zeros() : first + stretch.at);
        }
    }
    return over;
}

}  // namespace detente
