// The log of one process of a run. Started by `detente run`, a process writes to its standard
// error, which the launcher keeps in RUN/<role>-<rank>.log and shows where it matters; under mpirun
// it writes that file itself and shows warnings and errors with its name in front.
//
// Thread: any; spdlog serialises.
#pragma once

#include <memory>
#include <string>

#include "common/result.h"
#include "common/runtime/zmq/options.h"

namespace spdlog {
class logger;
}

namespace detente {

class ProcessLog {
  public:
    static ProcessLog to_standard_error();
    // io: the file cannot be written.
    static Result<ProcessLog> to_file(const std::string& path, const std::string& label);

    void write(LogLevel level, std::string_view text) const;
    LogSink sink() const;  // keeps the log alive

  private:
    explicit ProcessLog(std::shared_ptr<spdlog::logger> logger) : logger_(std::move(logger)) {}
    std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace detente
