// What steps that wait for a decision may take, and a host that has not so much.
#include "launch/staging_plan.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

Job job_with(const std::string& policy, std::uint32_t workers) {
    Job job;
    job.policy.name = policy;
    job.workers = workers;
    return job;
}

// A block on each.
Plan two_shards(std::uint64_t first_bytes = 1000, std::uint64_t second_bytes = 500) {
    Plan plan;
    plan.shard_bytes = {first_bytes, second_bytes};
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        Block block;
        block.id.value = shard;
        block.elements = plan.shard_bytes[shard] / sizeof(float);
        block.owners.insert(TaskId{0});
        block.home = ShardId{shard};
        plan.blocks.push_back(block);
        plan.by_shard.push_back({block.id});
    }
    return plan;
}

const std::vector<ShardId> kBoth{ShardId{0}, ShardId{1}};

}  // namespace

TEST_CASE("staging: every worker may have a step undecided and one more with each step ahead") {
    Job job = job_with("bsp", 3);
    CHECK(most_staged_steps(job) == 3);
    job.pull_ahead = 1;
    CHECK(most_staged_steps(job) == 6);
    job.places = 5;  // workers that join
    CHECK(most_staged_steps(job) == 10);
}

TEST_CASE("staging: what a policy keeps while workers go on counts too") {
    Job job = job_with("fedbuff", 3);
    job.policy.parameters = {{"k", "7"}};
    job.admission = Admission::step;
    CHECK(most_staged_steps(job) == 3 + 7);
    job = job_with("rennala", 3);  // as many as there are workers
    job.admission = Admission::step;
    CHECK(most_staged_steps(job) == 3 + 3);
}

TEST_CASE("staging: shards that decide by themselves keep nothing") {
    const Job job = job_with("bounded_reject", 3);
    CHECK(most_staged_steps(job) == 0);
    CHECK(describe_staging(two_shards(), job).empty());
    CHECK(check_staging(two_shards(), job, kBoth, 1, "small").has_value());
}

TEST_CASE("staging: the plan says how much each shard may keep") {
    CHECK(describe_staging(two_shards(), job_with("bsp", 3)) ==
          "shard 0 keeps at most 3 steps until they are decided: 3000 bytes\n"
          "shard 1 keeps at most 3 steps until they are decided: 1500 bytes\n");
}

TEST_CASE("staging: what is frozen is stored but never staged") {
    Plan plan = two_shards(10ULL << 30U, 1ULL << 30U);
    plan.blocks[0].frozen = true;
    const Job job = job_with("bsp", 3);
    CHECK_THAT(describe_staging(plan, job),
               Catch::Contains("shard 0 keeps at most 3 steps until they are decided: 0 bytes"));
    CHECK(check_staging(plan, job, kBoth, 14ULL << 30U, "node7").has_value());
    CHECK(check_staging(plan, job, kBoth, 13ULL << 30U, "node7").has_error());
}

TEST_CASE("staging: a host without the memory for it is refused by name") {
    const Plan plan = two_shards(3ULL << 30U, 2ULL << 30U);
    const Job job = job_with("bsp", 3);
    CHECK(check_staging(plan, job, kBoth, 20ULL << 30U, "node7").has_value());
    CHECK(check_staging(plan, job, {ShardId{1}}, 8ULL << 30U, "node7").has_value());
    const auto refused = check_staging(plan, job, kBoth, 19ULL << 30U, "node7");
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == ErrorCode::bad_job);
    CHECK_THAT(refused.error().text, Catch::Contains("3 steps of 3 workers") &&
                                         Catch::Contains("19.0 GiB of node7") &&
                                         Catch::Contains("15.0 GiB of gradients") &&
                                         Catch::Contains("5.0 GiB of weights on 2 shards"));
}

TEST_CASE("staging: a running job is held to the memory that the hosts of its shards told") {
    const Plan plan = two_shards(3ULL << 30U, 2ULL << 30U);
    ClusterView cluster;
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        ProcessView process;
        process.node = node_of(ShardId{shard});
        process.endpoint.host = shard == 0 ? "node7" : "node8";
        process.memory_bytes = 12ULL << 30U;
        cluster.processes.push_back(process);
    }
    ProcessView worker;
    worker.node = node_of(WorkerId{0});
    worker.endpoint.host = "node9";
    worker.memory_bytes = 1;
    cluster.processes.push_back(worker);
    // 3 and 9 GiB on the one, 2 and 6 on the other.
    Job job = job_with("bsp", 3);
    CHECK(check_staging(plan, job, cluster).has_value());
    // Both on one.
    cluster.processes[1].endpoint.host = "node7";
    const auto together = check_staging(plan, job, cluster);
    REQUIRE(together.has_error());
    CHECK(together.error().code == ErrorCode::bad_job);
    CHECK_THAT(together.error().text, Catch::Contains("12.0 GiB of node7") &&
                                          Catch::Contains("15.0 GiB of gradients") &&
                                          Catch::Contains("on 2 shards"));
    // As admission alone may ask for it; and shards that decide by themselves need nothing.
    job = job_with("async", 3);
    CHECK(check_staging(plan, job, cluster).has_value());
    job.admission = Admission::step;
    CHECK(check_staging(plan, job, cluster).has_error());
    // Who told nothing is not asked.
    for (ProcessView& process : cluster.processes) process.memory_bytes = 0;
    CHECK(check_staging(plan, job, cluster).has_value());
}

}  // namespace detente
