// The processes a launcher starts: their output goes to a log file each, with lines that matter
// also to the screen; their ends are collected at once and told with exit code or signal.
//
// A started process lies in a process group of its own (Ctrl-C reaches the launcher only) and dies
// with the launcher's main thread (PR_SET_PDEATHSIG), so that the launcher's own death by -9 leaves
// no orphan.
//
// Thread: the io_context's one thread, which must be the one that calls start().
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace detente {

// How a process ended.
struct ProcessEnd {
    int exit_code = 0;
    int signal = 0;  // 0 = it exited
    // "exit code 3" or "killed by signal 9 (SIGKILL)"
    std::string text() const;
    bool clean() const { return exit_code == 0 && signal == 0; }
};

struct ProcessSpec {
    std::string label;                   // "worker:2"
    std::vector<std::string> arguments;  // after the program's name
    std::string log_file;
    bool keep_output = false;  // stdout is not logged but kept, see output()
};

class Processes {
  public:
    struct Callbacks {
        // All output read, process reaped.
        std::function<void(const std::string& label, const ProcessEnd& end)> ended;
        // A line for the screen.
        std::function<void(const std::string& label, const std::string& line)> said;
    };
    Processes(boost::asio::io_context& loop, Callbacks callbacks);
    ~Processes();  // kills what still runs
    Processes(const Processes&) = delete;
    Processes& operator=(const Processes&) = delete;

    // Starts this very program again with other arguments. Returns its pid.
    Result<pid_t> start(const ProcessSpec& spec);
    void signal(const std::string& label, int number);
    void signal_all(int number);
    void kill_all() { signal_all(SIGKILL); }
    bool running(const std::string& label) const;
    std::size_t count_running() const;
    std::optional<ProcessEnd> end_of(const std::string& label) const;
    // The newest lines it wrote, oldest first.
    std::vector<std::string> last_lines(const std::string& label) const;
    std::string output(const std::string& label) const;

  private:
    struct Process;
    void wait_for_ends();
    void reap();
    void read(const std::shared_ptr<Process>& process, bool errors);
    void take_line(Process& process, const std::string& line);
    void end_if_done(const std::shared_ptr<Process>& process);
    std::shared_ptr<Process> find(const std::string& label) const;

    boost::asio::io_context& loop_;
    Callbacks callbacks_;
    boost::asio::signal_set child_signal_;
    std::vector<std::shared_ptr<Process>> processes_;
};

// Whether a line of a process's log is for the screen too: warnings, errors, a crash's last words.
bool matters(const std::string& line);

}  // namespace detente
