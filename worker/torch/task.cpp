#include "worker/torch/task.h"

#include <cerrno>
#include <cstring>

namespace detente {

namespace {
thread_local const Task* current = nullptr;
}

const Task* current_task() { return current; }

TaskScope::TaskScope(const Task& task) : before_(current) { current = &task; }
TaskScope::~TaskScope() { current = before_; }

Result<TaskLog> TaskLog::open(const std::string& path) {
    TaskLog log;
    log.file_.reset(std::fopen(path.c_str(), "a"));
    if (!log.file_) {
        return fail(ErrorCode::io, "task log " + path + ": cannot be opened for appending (" +
                                       std::strerror(errno) +
                                       "); make its folder writable or run with another --out");
    }
    return log;
}

void TaskLog::write(const std::string& line) {
    if (!file_) return;
    std::fprintf(file_.get(), "%s\n", line.c_str());
    std::fflush(file_.get());
}

void TaskLog::add_loss(double loss) {
    ++steps_;
    sum_ += loss;
    if (steps_ % kStepsPerLine != 0) return;
    char line[96];
    std::snprintf(line, sizeof line, "computations=%llu loss=%.6g",
                  static_cast<unsigned long long>(steps_), sum_ / kStepsPerLine);
    write(line);
    sum_ = 0;
}

}  // namespace detente
