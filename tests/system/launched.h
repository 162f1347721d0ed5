// A real run under test: `detente` as a process of its own, its output in files, its processes by
// pid, its pages over HTTP. Every wait has a deadline.
#pragma once

#include <sys/types.h>

#include <boost/json.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"

namespace detente::test {

// Looks again and again until it holds; false when `limit` has passed.
bool eventually(std::chrono::milliseconds limit, const std::function<bool()>& holds);

// Starts `detente` with these arguments in `folder`; -9 for it and whatever it left at the end.
class Launched {
  public:
    // Another program (mpirun) may be given; it is looked up on PATH.
    Launched(const TemporaryFolder& folder, const std::vector<std::string>& arguments,
             const std::string& program = DETENTE_PROGRAM);
    ~Launched();
    Launched(const Launched&) = delete;
    Launched& operator=(const Launched&) = delete;

    pid_t pid() const { return pid_; }
    void signal(int number) const;
    // Exit code, or 128 + signal. Nothing: still running at the deadline.
    std::optional<int> wait(std::chrono::milliseconds limit);
    std::string output() const;  // both streams so far
    // Processes whose parent is this one.
    std::vector<pid_t> children() const;

  private:
    pid_t pid_ = -1;
    std::optional<int> code_;
    std::string output_file_;
};

std::vector<std::string> words(std::vector<std::string> first,
                               const std::vector<std::string>& more);

// The folder of a run of the tiny model, with its job file.
class TinyRun {
  public:
    // `options` goes into [model.options], `tables` to the end of the job file.
    explicit TinyRun(const std::string& options = "", const std::string& tables = "");
    std::string job_file() const { return folder_ / "tiny.toml"; }
    std::string run_dir() const { return folder_ / "run"; }
    const TemporaryFolder& folder() const { return folder_; }
    std::vector<std::string> arguments(std::vector<std::string> more = {}) const;

    boost::json::object status() const;  // GET /status; empty = not there (yet)
    std::string page(const std::string& path) const;
    std::map<std::string, pid_t> pids() const;                                // "shard:0" → pid
    double value(const std::string& process, const std::string& name) const;  // reported; or 0
    bool training() const;
    bool reaches_training() const;
    bool has_checkpoint() const;
    boost::json::object summary() const;

  private:
    TemporaryFolder folder_;
};

bool alive(pid_t pid);

std::uint64_t count(const boost::json::object& object, const char* name);
// That a summary's updates add up, and none was in flight at the end.
void check_books(const boost::json::object& summary);

// Ranks 0 to 4 with these words each; and of `detente join JOB --out RUN` and `more`.
using Ranks = std::vector<std::unique_ptr<Launched>>;
Ranks by_hand(const TinyRun& run, const std::vector<std::string>& joins);
Ranks join_by_hand(const TinyRun& run, const std::vector<std::string>& more = {});

}  // namespace detente::test
