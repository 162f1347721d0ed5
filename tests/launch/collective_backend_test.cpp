// What a job's averages are given, before there is a group.
#include "launch/collective_backend.h"

#include <catch2/catch.hpp>

#include "launch/sync_plan.h"

namespace detente::test {
namespace {

// A trunk that all tasks own, and that is in step.
Plan plan_of(std::uint64_t elements, std::size_t tasks) {
    Block block;
    block.id = BlockId{0};
    block.elements = elements;
    block.owners.bits = (std::uint64_t{1} << tasks) - 1;
    block.in_step = true;
    Plan plan;
    plan.blocks = {block};
    plan.by_shard = {{block.id}};
    return plan;
}

Job job_of_backend() {
    Job job;
    job.workers = 4;
    job.sync_layers = {"*"};
    return job;
}

CollectivePlace place_of(std::size_t tasks) {
    CollectivePlace place;
    place.run = "a run";
    place.tasks = tasks;
    return place;
}

TEST_CASE("collective backend: shared memory has room for what the job puts in step") {
    for (const std::uint64_t elements : {1000ULL, 25'000'000ULL, 200'000'000ULL}) {
        const SharedMemoryOptions options =
            shared_memory_for(job_of_backend(), plan_of(elements, 2), place_of(2));
        const std::uint64_t bytes = 2 * elements * sizeof(float);
        CHECK(options.run == "a run");
        CHECK(options.round_bytes >= bytes);
        // The first member's own rows and the means, and those of the round before.
        CHECK(options.arena_bytes >= 4 * bytes);
        CHECK(options.arena_bytes < 5 * bytes + 100'000);
    }
}

TEST_CASE("sync layers: more tasks than can be averaged are refused before anything starts") {
    const auto resolved = [](std::size_t tasks, std::uint32_t pull_ahead) {
        Job job = job_of_backend();
        job.pull_ahead = pull_ahead;
        ModelDescription model;
        for (std::size_t i = 0; i < tasks; ++i) model.tasks.push_back(std::to_string(i));
        return resolve_sync_layers(job, model);
    };
    CHECK(resolved(61, 0).has_value());
    CHECK(resolved(29, 1).has_value());
    for (const auto& [tasks, ahead] : {std::pair(62, 0U), std::pair(30, 1U)}) {
        const auto refused = resolved(static_cast<std::size_t>(tasks), ahead);
        REQUIRE(refused.has_error());
        CHECK(refused.error().code == ErrorCode::bad_job);
        CHECK_THAT(refused.error().text, Catch::Contains("averages in flight, at most 64"));
    }
}

TEST_CASE("collective backend: over NCCL a worker uses its own GPU and the libraries of the job") {
    using Options = std::vector<std::pair<std::string, std::string>>;
    Job job = job_of_backend();
    CollectivePlace place = place_of(2);
    place.local = 3;
    CHECK(nccl_options(job, place).run == "a run");
    CHECK(nccl_options(job, place).options == Options{{"place", "3"}});
    place.device = "cuda:1";  // as worker.device was resolved
    job.sync_nccl_library = "/opt/libnccl.so";
    job.sync_cuda_library = "libcudart.so.12";
    CHECK(nccl_options(job, place).options == Options{{"device", "1"},
                                                      {"nccl_library", "/opt/libnccl.so"},
                                                      {"cuda_library", "libcudart.so.12"}});
}

}  // namespace
}  // namespace detente::test
