// The rows of tensors in step ([sync] layers): how they lie in a node's averages, task by task, and
// averages laid over a computation's own rows.
//
// A task's row is all tensors in step of which it owns a block, whole, one after the other in the
// model's order: a function of the plan, so that members agree about it without a word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/partition/plan.h"
#include "common/payload.h"
#include "worker/engine.h"

namespace detente {

class InStepRows {
  public:
    InStepRows(const Plan& plan, std::size_t tasks);

    bool any() const { return !blocks_.empty(); }
    const std::vector<BlockId>& blocks() const { return blocks_; }  // in step, ascending
    std::size_t tasks() const { return rows_.size(); }
    std::uint64_t elements(TaskId task) const { return rows_[task.value].elements; }

    // A copy of the task's row.
    Payload pack(TaskId task, const TaskGradients& gradients) const;
    // `own`, but for tensors in step the averages, by task; an empty one stands for zeros.
    // Requires: a payload is empty or of elements(task) floats.
    std::shared_ptr<const TaskGradients> overlay(std::shared_ptr<const TaskGradients> own,
                                                 std::vector<Payload> averages) const;

  private:
    struct Stretch {
        std::uint32_t tensor = 0;
        std::uint64_t elements = 0;
        std::uint64_t at = 0;  // first element within the row
    };
    struct Row {
        std::vector<Stretch> stretches;
        std::uint64_t elements = 0;
    };
    std::vector<BlockId> blocks_;
    std::vector<Row> rows_;  // by task
};

}  // namespace detente
