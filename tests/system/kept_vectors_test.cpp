// What workers keep as vectors, over the end of a run of real processes.
#include <catch2/catch.hpp>
#include <filesystem>

#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

TEST_CASE("resume: workers of real processes go on from the averages their method kept") {
    const TinyRun run("", "[conflict]\nmethod = \"moco\"\n");
    Launched first(run.folder(), run.arguments());
    REQUIRE(first.wait(seconds(60)) == 0);
    const std::string file = run.run_dir() + "/checkpoints/1/worker-1.safetensors";
    REQUIRE(std::filesystem::exists(file));
    const auto resumed = [&](const std::string& name) {
        return std::vector<std::string>{"run",      run.job_file(), "--out", run.folder() / name,
                                        "--resume", run.run_dir(),  "--set", "data.epochs=20"};
    };
    Launched second(run.folder(), resumed("second"));
    const auto code = second.wait(seconds(60));
    INFO(second.output());
    REQUIRE(code == 0);
    CHECK(std::filesystem::exists(run.folder() / "second/checkpoints/2/worker-1.safetensors"));
    CHECK_THAT(bytes_of_file(run.folder() / "second/worker-1.log"),
               !Catch::Contains("begins anew"));

    std::string altered = bytes_of_file(file);
    altered.back() = static_cast<char>(altered.back() ^ 1);
    write_file(file, altered);
    Launched refused(run.folder(), resumed("refused"));
    CHECK(refused.wait(seconds(60)) == value_of(ExitCode::checkpoint));
    CHECK_THAT(refused.output(), Catch::Contains("worker-1.safetensors"));
    CHECK_THAT(refused.output(), Catch::Contains("use another checkpoint"));
}

}  // namespace
}  // namespace detente::test
