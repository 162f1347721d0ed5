// A task is a context of its own: who it is, which tensors are its, its random stream, its log.
// While a task's own part of the forward or its backward runs, a scope guard makes it the thread's
// current task: the one thread-local of the framework. On a device LibTorch runs a backward on a
// thread of its own, which has none.
//
// Thread: made and used by the one compute thread of its engine.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

// A text file of one task, one line per kStepsPerLine computations, so that it costs nothing.
class TaskLog {
  public:
    static constexpr int kStepsPerLine = 100;

    TaskLog() = default;  // writes nothing
    // Appends to `path`. Error: io, with the path and the system's reason.
    static Result<TaskLog> open(const std::string& path);
    void write(const std::string& line);
    // Counts one computation; every kStepsPerLine-th one writes their mean loss.
    void add_loss(double loss);

  private:
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::unique_ptr<std::FILE, Close> file_;
    std::uint64_t steps_ = 0;
    double sum_ = 0;
};

struct Task {
    TaskId id;
    std::string name;
    std::vector<std::string> tensors;  // names of the tensors its loss reaches
    std::uint64_t stream = 0;          // key of its random stream in the computation at hand
    TaskLog log;
};

// The task whose part runs on this thread now; nullptr outside of any, as in the trunk.
const Task* current_task();

// Makes `task` current until the end of the scope, then the one before it again.
// Requires: `task` outlives the scope.
class TaskScope {
  public:
    explicit TaskScope(const Task& task);
    ~TaskScope();
    TaskScope(const TaskScope&) = delete;
    TaskScope& operator=(const TaskScope&) = delete;

  private:
    const Task* before_;
};

}  // namespace detente
