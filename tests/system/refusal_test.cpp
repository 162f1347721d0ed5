// What cannot work is refused with a message that tells what to do.
#include <arpa/inet.h>
#include <fcntl.h>
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
#include <functional>

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

// Nobody can write there any more: root on a mount of its own, gone with the process; for others
// the folder's mode is enough.
bool seal(const std::string& folder) {
    if (::geteuid() != 0) return ::chmod(folder.c_str(), 0555) == 0;
    const char* path = folder.c_str();
    if (::unshare(CLONE_NEWNS) != 0) return false;
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    if (::mount(path, path, nullptr, MS_BIND, nullptr) != 0) return false;
    return ::mount(nullptr, path, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) == 0;
}

// Runs `run` of that job in a child that `prepare`d; 99: that was not possible.
int exit_code_after(const std::function<bool()>& prepare, const std::string& output,
                    const std::vector<std::string>& arguments) {
    const pid_t child = ::fork();
    if (child == 0) {
        if (!prepare()) ::_exit(99);
        const int out = ::open(output.c_str(), O_WRONLY | O_CREAT, 0644);
        ::dup2(out, STDOUT_FILENO);
        ::dup2(out, STDERR_FILENO);
        std::vector<std::string> words = arguments;
        std::vector<char*> pointers;
        for (std::string& word : words) pointers.push_back(word.data());
        pointers.push_back(nullptr);
        ::execv(DETENTE_PROGRAM, pointers.data());
        ::_exit(98);
    }
    int status = 0;
    const bool ended =
        eventually(seconds(60), [&] { return ::waitpid(child, &status, WNOHANG) == child; });
    if (!ended) ::kill(child, SIGKILL);
    REQUIRE(ended);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_CASE("refusal: a run directory that is there but cannot be written is one clear error") {
    const TinyRun run;
    const std::string sealed = run.run_dir();
    // With all its folders: nothing is left to be made, and to fail at.
    std::filesystem::create_directories(sealed + "/ledger");
    std::filesystem::create_directories(sealed + "/checkpoints");
    const std::string output = run.folder() / "output";
    const int code = exit_code_after([&] { return seal(sealed); }, output,
                                     {DETENTE_PROGRAM, "run", run.job_file(), "--out", sealed});
    std::filesystem::permissions(sealed, std::filesystem::perms::owner_all);
    if (code == 99) {
        WARN("skipped: this machine does not let the test mount a folder read-only");
        return;
    }
    CHECK(code == value_of(ExitCode::io));
    const std::string why = ::geteuid() == 0 ? "Read-only file system" : "Permission denied";
    CHECK_THAT(bytes_of_file(output),
               Catch::Contains("detente run: cannot make the run directory " + sealed + ": " + why +
                               "; choose another with --out DIR"));
    CHECK_FALSE(std::filesystem::exists(sealed + "/job.toml"));
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
    const int code = exit_code_after([&] { return on_small_disk(disk); }, output,
                                     {DETENTE_PROGRAM, "run", run.job_file(), "--out",
                                      disk + "/run", "--set", "data.epochs=40"});
    if (code == 99) {
        WARN("skipped: this machine does not let the test mount a small tmpfs");
        return;
    }
    CHECK(code == value_of(ExitCode::io));
    const std::string shown = bytes_of_file(output);
    const std::size_t failed = shown.find("FAILED: ");
    REQUIRE(failed != std::string::npos);
    // What is told first names the file, the disk's own word, and the way on.
    CHECK_THAT(
        shown.substr(failed, shown.find('\n', failed) - failed),
        Catch::Contains("cannot write " + disk + "/run/") &&
            Catch::Contains(": No space left on device; free some space, or choose another --out"));
}

TEST_CASE("refusal: doctor says that the LibTorch of the build is gone and how to get one") {
    const std::string place = LIBTORCH_FOLDER;
    if (place.empty()) {
        WARN("skipped: this build has no LibTorch");
        return;
    }
    const TemporaryFolder folder;
    const std::string output = folder / "output";
    // Where it was, that process finds an empty disk.
    const int code =
        exit_code_after([&] { return on_small_disk(place); }, output, {DETENTE_PROGRAM, "doctor"});
    if (code == 99) {
        WARN("skipped: this machine does not let the test mount a small tmpfs");
        return;
    }
    CHECK(code == value_of(ExitCode::usage));
    CHECK_THAT(bytes_of_file(output),
               Catch::Contains("MISSING: this build was made with " + place +
                               "/libtorch_cpu.so, which is gone: run scripts/build") &&
                   Catch::EndsWith("Something that is needed is missing: see above.\n"));
}

}  // namespace
}  // namespace detente::test
