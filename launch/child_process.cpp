#include "launch/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

// glibc 2.36's header lacks the linkage (its bug 29865, mended in 2.37).
extern "C" {
#include <sys/pidfd.h>
}

namespace detente {
namespace {

using Clock = std::chrono::steady_clock;

// A file descriptor that closes itself.
class Descriptor {
  public:
    explicit Descriptor(int number = -1) : number_(number) {}
    ~Descriptor() { reset(); }
    Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        reset();
        number_ = std::exchange(other.number_, -1);
        return *this;
    }
    int get() const { return number_; }
    void reset() {
        if (number_ >= 0) ::close(number_);
        number_ = -1;
    }

  private:
    int number_;
};

struct Pipe {
    Descriptor read;
    Descriptor write;
};

Error failed(const std::string& what) {
    return fail(ErrorCode::io, fmt::format("{}: {}", what, std::strerror(errno)));
}

Result<Pipe> make_pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return failed("cannot make a pipe");
    return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// The input as a file in memory, so that a child that does not read it cannot block us.
Result<Descriptor> file_of(const std::string& input) {
    Descriptor file(::memfd_create("input", MFD_CLOEXEC));
    if (file.get() < 0) return failed("cannot make a file in memory");
    std::size_t written = 0;
    while (written < input.size()) {
        const ssize_t count = ::write(file.get(), input.data() + written, input.size() - written);
        if (count < 0) return failed("cannot write to a file in memory");
        written += static_cast<std::size_t>(count);
    }
    ::lseek(file.get(), 0, SEEK_SET);
    return file;
}

// After fork, in the child: only async-signal-safe calls.
[[noreturn]] void become(char* const* arguments, int input, int output, int errors, int failure,
                         pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // it died before the line above
    ::dup2(input, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(errors, STDERR_FILENO);
    ::execvp(arguments[0], arguments);
    const int reason = errno;
    [[maybe_unused]] const ssize_t ignored = ::write(failure, &reason, sizeof reason);
    ::_exit(127);
}

// Takes what is there; false at the end of the stream.
bool drain(int descriptor, std::string& into) {
    std::array<char, 65536> part{};
    const ssize_t count = ::read(descriptor, part.data(), part.size());
    if (count < 0) return errno == EINTR || errno == EAGAIN;
    into.append(part.data(), static_cast<std::size_t>(count));
    return count > 0;
}

// Until both streams and the process have ended; false when the deadline passes first.
bool collect(int pidfd, Pipe& output, Pipe& errors, Clock::time_point deadline,
             ChildOutput& result) {
    bool running = true;
    while (running || output.read.get() >= 0 || errors.read.get() >= 0) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) return false;
        std::array<pollfd, 3> waits = {{{running ? pidfd : -1, POLLIN, 0},
                                        {output.read.get(), POLLIN, 0},
                                        {errors.read.get(), POLLIN, 0}}};
        ::poll(waits.data(), waits.size(), static_cast<int>(std::min<long>(left, 1000)));
        if (waits[1].revents != 0 && !drain(output.read.get(), result.output)) output.read.reset();
        if (waits[2].revents != 0 && !drain(errors.read.get(), result.errors)) errors.read.reset();
        if (waits[0].revents != 0) running = false;
    }
    return true;
}

}  // namespace

Result<ChildOutput> run_child(const std::vector<std::string>& command, const std::string& input,
                              Nanos deadline) {
    auto in = file_of(input);
    if (!in) return in.error();
    auto out = make_pipe();
    auto err = make_pipe();
    auto failure = make_pipe();
    if (!out) return out.error();
    if (!err) return err.error();
    if (!failure) return failure.error();
    std::vector<char*> arguments;
    arguments.reserve(command.size() + 1);
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);

    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return failed("cannot start a process");
    if (child == 0) {
        become(arguments.data(), in->get(), out->write.get(), err->write.get(),
               failure->write.get(), parent);
    }
    out->write.reset();
    err->write.reset();
    failure->write.reset();
    const Descriptor pidfd(::pidfd_open(child, 0));
    ChildOutput result;
    const bool ended = collect(pidfd.get(), *out, *err, Clock::now() + deadline, result);
    if (!ended) ::kill(child, SIGKILL);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!ended) {
        return fail(ErrorCode::timed_out,
                    fmt::format("'{}' did not end within {} s and was killed", command[0],
                                std::chrono::duration<double>(deadline).count()));
    }
    int reason = 0;
    if (::read(failure->read.get(), &reason, sizeof reason) == sizeof reason) {
        return fail(ErrorCode::io,
                    fmt::format("cannot start '{}': {}", command[0], std::strerror(reason)));
    }
    result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    result.exit_code = result.signal != 0 ? 128 + result.signal : WEXITSTATUS(status);
    return result;
}

}  // namespace detente
