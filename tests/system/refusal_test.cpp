// What cannot work is refused with a message that tells what to do.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "launch/exit_code.h"
#include "launch/gpu.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

TEST_CASE("refusal: a taken port is named, with what to do") {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&own), sizeof(own)) == 0);
    REQUIRE(::listen(socket, 1) == 0);
    socklen_t size = sizeof(own);
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &size);
    const std::string port = std::to_string(ntohs(own.sin_port));

    const TinyRun run;
    Launched launched(run.folder(), run.arguments({"--port", port}));
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::io));
    CHECK_THAT(launched.output(), Catch::Contains("127.0.0.1:" + port) &&
                                      Catch::Contains("in use") &&
                                      Catch::Contains("choose another port"));
    ::close(socket);
}

TEST_CASE("refusal: a wrong key fails before any process, naming file, line and the nearest key") {
    const TinyRun run("", "[worker]\npul_ahead = 1\n");
    Launched launched(run.folder(), run.arguments());
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(launched.output(), Catch::Contains("tiny.toml:") && Catch::Contains("pul_ahead") &&
                                      Catch::Contains("pull_ahead"));
    CHECK_FALSE(std::filesystem::exists(run.run_dir()));
}

TEST_CASE("refusal: a job for GPUs on a host without fails before any process") {
    if (count_gpus()) {
        WARN("this machine has GPUs: skipped");
        return;
    }
    const TinyRun run;
    Launched launched(run.folder(), run.arguments({"--set", "worker.device=cuda"}));
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(launched.output(), Catch::Contains("worker.device = \"cuda\"") &&
                                      Catch::Contains("looked for NVIDIA's driver, libcuda.so.1"));
    CHECK_FALSE(std::filesystem::exists(run.run_dir()));
    Launched wrong(run.folder(), run.arguments({"--set", "worker.device=gpu"}));
    CHECK(wrong.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(wrong.output(),
               Catch::Contains("worker.device: must be \"cpu\", \"cuda\" or \"cuda:N\""));
}

TEST_CASE("refusal: a missing model library is named") {
    const TinyRun run;
    Launched launched(run.folder(), run.arguments({"--set", "model.library=/nowhere/libmine.so"}));
    const auto code = launched.wait(seconds(20));
    CHECK((code == value_of(ExitCode::usage) || code == value_of(ExitCode::model)));
    CHECK_THAT(launched.output(), Catch::Contains("/nowhere/libmine.so"));
}

TEST_CASE("refusal: a missing and a truncated data file are named with what was expected") {
    const TinyRun run("", "");
    const std::string folder = run.folder() / "dataset";
    std::filesystem::create_directory(folder);
    {
        Launched launched(run.folder(), run.arguments({"--set", "data.dir=" + folder}));
        CHECK(launched.wait(seconds(20)) == value_of(ExitCode::model));
        CHECK_THAT(launched.output(), Catch::Contains(folder + "/tiny.data: expected 16 bytes") &&
                                          Catch::Contains("No such file"));
    }
    write_file(folder + "/tiny.data", "short");
    Launched launched(run.folder(), run.arguments({"--set", "data.dir=" + folder}));
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::model));
    CHECK_THAT(launched.output(), Catch::Contains("found 5 bytes"));
}

TEST_CASE("refusal: a run directory that cannot be made is one clear error") {
    const TinyRun run;
    write_file(run.folder() / "file", "in the way");  // root may write everywhere, but not here
    Launched launched(run.folder(), {"run", run.job_file(), "--out", run.folder() / "file/run"});
    CHECK(launched.wait(seconds(20)) == value_of(ExitCode::io));
    CHECK_THAT(launched.output(),
               Catch::Contains("cannot make the run directory") && Catch::Contains("--out"));
}

TEST_CASE("refusal: a folder that holds a run already is left alone") {
    const TinyRun run;
    Launched first(run.folder(), run.arguments());
    REQUIRE(first.wait(seconds(30)) == 0);
    Launched second(run.folder(), run.arguments());
    CHECK(second.wait(seconds(20)) == value_of(ExitCode::io));
    CHECK_THAT(second.output(), Catch::Contains("holds a run already"));
}

TEST_CASE("refusal: --resume of something that is no run, and of another model") {
    const TinyRun run;
    Launched none(run.folder(), run.arguments({"--resume", run.folder().path()}));
    CHECK(none.wait(seconds(20)) == value_of(ExitCode::checkpoint));
    CHECK_THAT(none.output(), Catch::Contains("no complete checkpoint"));

    Launched first(run.folder(), run.arguments());
    REQUIRE(first.wait(seconds(30)) == 0);
    Launched other(run.folder(),
                   {"run", run.job_file(), "--out", run.folder() / "other", "--resume",
                    run.run_dir(), "--set", "model.options.elements=6000"});
    CHECK(other.wait(seconds(20)) == value_of(ExitCode::checkpoint));
    CHECK_THAT(other.output(), Catch::Contains("trunk.weight"));
}

// A small file system of its own for the process that asks, gone with it.
bool on_small_disk(const std::string& folder) {
    if (::unshare(CLONE_NEWNS) != 0) return false;
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    return ::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=256k") == 0;
}

TEST_CASE("refusal: a full disk ends the run and is named") {
    const TinyRun run("", "");
    const std::string disk = run.folder() / "disk";
    std::filesystem::create_directory(disk);
    const std::string output = run.folder() / "output";
    const pid_t child = ::fork();
    if (child == 0) {
        if (!on_small_disk(disk)) ::_exit(99);
        const int out = ::open(output.c_str(), O_WRONLY | O_CREAT, 0644);
        ::dup2(out, STDOUT_FILENO);
        ::dup2(out, STDERR_FILENO);
        const std::string job = run.job_file();
        const std::string dir = disk + "/run";
        ::execl(DETENTE_PROGRAM, DETENTE_PROGRAM, "run", job.c_str(), "--out", dir.c_str(), "--set",
                "data.epochs=40", nullptr);
        ::_exit(98);
    }
    int status = 0;
    const bool ended =
        eventually(seconds(60), [&] { return ::waitpid(child, &status, WNOHANG) == child; });
    if (!ended) ::kill(child, SIGKILL);
    REQUIRE(ended);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
        WARN("skipped: this machine does not let the test mount a small tmpfs");
        return;
    }
    CHECK(WEXITSTATUS(status) == value_of(ExitCode::io));
    CHECK_THAT(bytes_of_file(output), Catch::Contains("No space left on device"));
}

}  // namespace
}  // namespace detente::test
