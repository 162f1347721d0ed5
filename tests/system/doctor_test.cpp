// `detente doctor` as a user runs it: what is there, what is not, and how to get that.
#include <flatbuffers/base.h>
#include <fmt/format.h>
#include <zmq.h>

#include <boost/version.hpp>
#include <catch2/catch.hpp>
#include <sstream>

#include "common/build_id.h"
#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

constexpr std::size_t kSubjectWidth = 14;

// What the line about `subject` says; nothing if there is no such line.
std::optional<std::string> line_about(const std::string& subject, const std::string& output) {
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with(fmt::format("{:<{}}", subject, kSubjectWidth))) {
            return line.substr(kSubjectWidth);
        }
    }
    return std::nullopt;
}

// LibTorch is the only thing that a build may lack and that training needs.
void check_verdict(const std::string& output, std::optional<int> code) {
    const bool complete = !std::string(LIBTORCH_FOLDER).empty();
    CHECK(code == (complete ? 0 : value_of(ExitCode::usage)));
    CHECK_THAT(output, Catch::EndsWith(complete ? "Nothing that is needed is missing.\n"
                                                : "that is needed is missing: see above.\n"));
}

TEST_CASE("doctor: names LibTorch's place and what versions the build has, and ends with 0") {
    const TemporaryFolder folder;
    Launched doctor(folder, {"doctor"});
    const auto code = doctor.wait(seconds(60));
    const std::string shown = doctor.output();
    CAPTURE(shown);
    check_verdict(shown, code);

    CHECK(line_about("detente", shown) == build_description());
    int zmq[3] = {};
    ::zmq_version(&zmq[0], &zmq[1], &zmq[2]);
    CHECK(line_about("ZeroMQ", shown) == fmt::format("{}.{}.{}", zmq[0], zmq[1], zmq[2]));
    CHECK(line_about("FlatBuffers", shown) == fmt::format("{}.{}.{}", FLATBUFFERS_VERSION_MAJOR,
                                                          FLATBUFFERS_VERSION_MINOR,
                                                          FLATBUFFERS_VERSION_REVISION));
    CHECK(line_about("Boost", shown) == fmt::format("{}.{}.{}", BOOST_VERSION / 100000,
                                                    BOOST_VERSION / 100 % 1000,
                                                    BOOST_VERSION % 100));
    const auto torch = line_about("LibTorch", shown);
    REQUIRE(torch.has_value());
    const std::string place = LIBTORCH_FOLDER;
    if (place.empty()) {
        CHECK_THAT(*torch, Catch::StartsWith("MISSING: run scripts/build"));
    } else {
        CHECK_THAT(*torch, Catch::StartsWith(LIBTORCH_VERSION ", from ") &&
                               Catch::EndsWith(" (" + place + ")"));
        CHECK(std::filesystem::exists(place + "/libtorch_cpu.so"));
    }
}

TEST_CASE("doctor: says of a tool that is not there what it is for and how to get it") {
    const TemporaryFolder folder;
    // No tool is on this path.
    Launched doctor(
        folder, {"PATH=" + folder.path(), "CUDA_HOME=/nowhere", DETENTE_PROGRAM, "doctor"}, "env");
    const auto code = doctor.wait(seconds(60));
    const std::string shown = doctor.output();
    CAPTURE(shown);
    check_verdict(shown, code);  // what is not needed is nobody's failure
    CHECK(line_about("ccache", shown) ==
          "not found (only to build faster the second time: apt-get install ccache)");
    CHECK(line_about("Open MPI", shown) ==
          "not found (only to launch by mpirun: apt-get install openmpi-bin)");
    CHECK(line_about("MPICH", shown) ==
          "not found (only to launch by mpirun: apt-get install mpich)");
    CHECK(line_about("Slurm", shown) ==
          "not found (only to launch by srun: apt-get install slurm-client)");
    CHECK_THAT(line_about("CUDA toolkit", shown).value_or(""),
               Catch::StartsWith("not found (") && Catch::Contains("install NVIDIA's toolkit"));
}

}  // namespace
}  // namespace detente::test
