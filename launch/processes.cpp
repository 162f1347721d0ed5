#include "launch/processes.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <cerrno>
#include <utility>

namespace detente {

namespace asio = boost::asio;
using ErrorOfAsio = boost::system::error_code;

namespace {

constexpr std::size_t kLinesKept = 40;
constexpr std::size_t kMostLineBytes = 16U << 10U;
constexpr std::size_t kMostOutputBytes = 4U << 20U;

}  // namespace

std::string ProcessEnd::text() const {
    if (signal == 0) return fmt::format("exit code {}", exit_code);
    const char* name = ::sigabbrev_np(signal);
    return fmt::format("killed by signal {} (SIG{})", signal, name == nullptr ? "?" : name);
}

bool matters(const std::string& line) {
    for (const char* mark : {"[warning]", "[error]", "[critical]", "invariant broken",
                             "terminate called", "  what():", "Sanitizer", "runtime error:"}) {
        if (line.find(mark) != std::string::npos) return true;
    }
    return false;
}

struct Processes::Process {
    Process(asio::io_context& loop, std::string name)
        : label(std::move(name)), out(loop), err(loop) {}
    ~Process() {
        if (log >= 0) ::close(log);
    }
    std::string label;
    pid_t pid = -1;
    int log = -1;
    bool keep_output = false;
    asio::posix::stream_descriptor out;
    asio::posix::stream_descriptor err;
    std::array<char, 4096> out_buffer{};
    std::array<char, 4096> err_buffer{};
    std::string out_line;
    std::string err_line;
    std::string output;
    std::deque<std::string> lines;
    std::optional<ProcessEnd> end;
    bool told = false;
};

Processes::Processes(asio::io_context& loop, Callbacks callbacks)
    : loop_(loop), callbacks_(std::move(callbacks)), child_signal_(loop, SIGCHLD) {
    wait_for_ends();
}

Processes::~Processes() {
    kill_all();
    for (const auto& process : processes_) {
        if (!process->end) ::waitpid(process->pid, nullptr, 0);
    }
}

namespace {

struct Pipe {
    int read_end = -1;
    int write_end = -1;
};

bool make_pipe(Pipe& pipe) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
    pipe.read_end = ends[0];
    pipe.write_end = ends[1];
    return true;
}

// In the child, between fork and exec: async-signal-safe calls only.
[[noreturn]] void become(const char* program, char* const* arguments, int out, int err,
                         pid_t parent) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // the parent died in between
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    ::execv(program, arguments);
    ::_exit(127);
}

}  // namespace

Result<pid_t> Processes::start(const ProcessSpec& spec) {
    auto process = std::make_shared<Process>(loop_, spec.label);
    process->keep_output = spec.keep_output;
    process->log = ::open(spec.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (process->log < 0) {
        return fail(ErrorCode::io,
                    fmt::format("cannot write {}: {}", spec.log_file, ::strerror(errno)));
    }
    Pipe out;
    Pipe err;
    if (!make_pipe(out) || !make_pipe(err)) {
        return fail(ErrorCode::io,
                    fmt::format("no pipe for {}: {}", spec.label, ::strerror(errno)));
    }
    std::vector<std::string> words = {"detente"};
    words.insert(words.end(), spec.arguments.begin(), spec.arguments.end());
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const pid_t parent = ::getpid();
    process->pid = ::fork();
    if (process->pid == 0) {
        become("/proc/self/exe", arguments.data(), out.write_end, err.write_end, parent);
    }
    ::close(out.write_end);
    ::close(err.write_end);
    if (process->pid < 0) {
        ::close(out.read_end);
        ::close(err.read_end);
        return fail(ErrorCode::io,
                    fmt::format("cannot start {}: {}", spec.label, ::strerror(errno)));
    }
    process->out.assign(out.read_end);
    process->err.assign(err.read_end);
    processes_.push_back(process);
    read(process, false);
    read(process, true);
    return process->pid;
}

void Processes::read(const std::shared_ptr<Process>& process, bool errors) {
    auto& stream = errors ? process->err : process->out;
    auto& buffer = errors ? process->err_buffer : process->out_buffer;
    stream.async_read_some(
        asio::buffer(buffer), [this, process, errors](const ErrorOfAsio& error, std::size_t count) {
            std::string& line = errors ? process->err_line : process->out_line;
            const char* bytes = (errors ? process->err_buffer : process->out_buffer).data();
            if (!errors && process->keep_output) {
                if (process->output.size() < kMostOutputBytes) process->output.append(bytes, count);
            } else {
                for (std::size_t i = 0; i < count; ++i) {
                    if (bytes[i] != '\n') line += bytes[i];
                    if (bytes[i] != '\n' && line.size() < kMostLineBytes) continue;
                    take_line(*process, line);
                    line.clear();
                }
            }
            if (!error) return read(process, errors);
            if (!line.empty()) take_line(*process, line);
            line.clear();
            ErrorOfAsio ignored;
            (errors ? process->err : process->out).close(ignored);
            end_if_done(process);
        });
}

void Processes::take_line(Process& process, const std::string& line) {
    const std::string with_end = line + "\n";
    // A log on a full disk is the least of that run's troubles: its nodes will say so.
    [[maybe_unused]] const ssize_t ignored = ::write(process.log, with_end.data(), with_end.size());
    process.lines.push_back(line);
    if (process.lines.size() > kLinesKept) process.lines.pop_front();
    if (matters(line)) callbacks_.said(process.label, line);
}

void Processes::wait_for_ends() {
    child_signal_.async_wait([this](const ErrorOfAsio& cancelled, int) {
        if (cancelled) return;
        reap();
        wait_for_ends();
    });
}

void Processes::reap() {
    for (const auto& process : std::vector<std::shared_ptr<Process>>(processes_)) {
        int status = 0;
        if (process->end || ::waitpid(process->pid, &status, WNOHANG) != process->pid) continue;
        process->end = WIFSIGNALED(status) ? ProcessEnd{0, WTERMSIG(status)}
                                           : ProcessEnd{WEXITSTATUS(status), 0};
        end_if_done(process);
    }
}

void Processes::end_if_done(const std::shared_ptr<Process>& process) {
    if (!process->end || process->told || process->out.is_open() || process->err.is_open()) return;
    process->told = true;
    callbacks_.ended(process->label, *process->end);
}

std::shared_ptr<Processes::Process> Processes::find(const std::string& label) const {
    const auto found = std::find_if(processes_.rbegin(), processes_.rend(),
                                    [&](const auto& p) { return p->label == label; });
    return found == processes_.rend() ? nullptr : *found;
}

void Processes::signal(const std::string& label, int number) {
    const auto process = find(label);
    if (process && !process->end) ::kill(process->pid, number);
}

void Processes::signal_all(int number) {
    for (const auto& process : processes_) {
        if (!process->end) ::kill(process->pid, number);
    }
}

bool Processes::running(const std::string& label) const {
    const auto process = find(label);
    return process && !process->end;
}

std::size_t Processes::count_running() const {
    return static_cast<std::size_t>(
        std::count_if(processes_.begin(), processes_.end(), [](const auto& p) { return !p->end; }));
}

std::optional<ProcessEnd> Processes::end_of(const std::string& label) const {
    const auto process = find(label);
    return process ? process->end : std::nullopt;
}

std::vector<std::string> Processes::last_lines(const std::string& label) const {
    const auto process = find(label);
    if (!process) return {};
    return {process->lines.begin(), process->lines.end()};
}

std::string Processes::output(const std::string& label) const {
    const auto process = find(label);
    return process ? process->output : "";
}

}  // namespace detente
