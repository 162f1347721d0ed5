#include "launch/gpu.h"

#include <catch2/catch.hpp>

#include "launch/job.h"
#include "launch/roles.h"

namespace detente {
namespace {

Job job_on(const std::string& device) {
    Job job;
    job.device = device;
    return job;
}

std::string device(const std::string& wanted, std::uint32_t place, const std::string& driver) {
    const auto found = device_of(job_on(wanted), place, driver);
    return found ? *found : found.error().text;
}

TEST_CASE("gpu: the processor needs no driver") {
    CHECK(device("cpu", 3, "/nowhere/libcuda.so.1") == "cpu");
}

TEST_CASE("gpu: workers of a host take its GPUs by turns unless the job names one") {
    CHECK(device("cuda", 0, TWO_GPUS) == "cuda:0");
    CHECK(device("cuda", 1, TWO_GPUS) == "cuda:1");
    CHECK(device("cuda", 2, TWO_GPUS) == "cuda:0");
    CHECK(device("cuda:1", 0, TWO_GPUS) == "cuda:1");
}

TEST_CASE("gpu: what is not there is named with what was looked for") {
    const std::string here = this_host();
    CHECK_THAT(device("cuda", 0, "/nowhere/libcuda.so.1"),
               Catch::Contains("worker.device = \"cuda\" on " + here + ": no GPU can be used") &&
                   Catch::Contains("looked for NVIDIA's driver, /nowhere/libcuda.so.1: ") &&
                   Catch::Contains("set worker.device = \"cpu\""));
    CHECK_THAT(device("cuda:2", 0, TWO_GPUS),
               Catch::Contains("worker.device = \"cuda:2\"") && Catch::Contains("finds 2 GPUs"));
    CHECK_THAT(device("cuda", 0, NO_GPU), Catch::Contains("error 100, no CUDA-capable device"));
    CHECK(device_of(job_on("cuda"), 0, NO_GPU).error().code == ErrorCode::not_supported);
}

TEST_CASE("gpu: a job names the processor or a GPU and nothing else") {
    for (const char* wrong : {"gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""}) {
        const auto number = gpu_number(wrong);
        INFO(wrong);
        REQUIRE(number.has_error());
        CHECK_THAT(number.error().text, Catch::Contains("must be \"cpu\", \"cuda\" or \"cuda:N\""));
    }
    CHECK(*gpu_number("cuda:12") == 12);
}

}  // namespace
}  // namespace detente
