// [simulate] in a job file: read, written, and refused where it cannot be.
#include "launch/simulation_faults.h"

#include <catch2/catch.hpp>

#include "launch/job.h"

namespace detente {
namespace {

const std::string kJob = "workers = 3\nservers = 2\n[model]\nlibrary = \"builtin:null\"\n";

std::string mistake(const std::string& text) {
    const auto job = parse_job(kJob + text, "job.toml");
    return job ? "no mistake" : job.error().text;
}

TEST_CASE("simulate keys: every table is read, and comes back from the resolved job") {
    const auto job = parse_job(kJob + R"(
[simulate]
limit_s = 60
invariants = false
[simulate.compute]
distribution = "pareto"
alpha = 3
factors = [1, 2.5]
straggler = 2
straggler_factor = 10
cancel_s = 0.001
[simulate.network]
latency_s = 0.001
bandwidth = "1MiB"
drop = 0.5
[simulate.staleness]
distribution = "poisson"
mean = 3
[[simulate.fault]]
kind = "clog"
node = "server:1"
peer = "worker:0"
at_s = 2
lasts_s = 1.5
delay_s = 0.25
both_ways = false
)",
                               "job.toml");
    INFO((job ? "" : job.error().text));
    REQUIRE(job.has_value());
    const auto again = parse_job(to_toml(*job), "resolved");
    REQUIRE(again.has_value());
    for (const Job* one : {&*job, &*again}) {
        const SimulationConfig& simulate = one->simulate;
        CHECK(simulate.limit == std::chrono::seconds(60));
        CHECK_FALSE(simulate.invariants);
        CHECK(simulate.compute.distribution == "pareto");
        CHECK(simulate.compute.factors == std::vector<double>{1, 2.5});
        CHECK(simulate.compute.straggler_factor == 10);
        CHECK(simulate.compute.cancel == std::chrono::milliseconds(1));
        CHECK(simulate.network.bandwidth_bytes_per_s == 1U << 20U);
        CHECK(simulate.network.drop == 0.5);
        CHECK(simulate.staleness.mean == 3);
        REQUIRE(simulate.faults.size() == 1);
        const FaultConfig& fault = simulate.faults.front();
        CHECK(fault.kind == FaultKind::clog);
        CHECK(fault.node == "server:1");
        CHECK(fault.delay == std::chrono::milliseconds(250));
        CHECK_FALSE(fault.both_ways);
    }
}

TEST_CASE("simulate keys: what cannot be is refused by file, line and key") {
    const std::string fault = "[[simulate.fault]]\n";
    CHECK_THAT(mistake(fault + "kind = \"crash\"\nnode = \"worker:3\"\n"),
               Catch::Contains("job.toml:7: simulate.fault.0.node: must be worker:0 to worker:2"));
    CHECK_THAT(mistake(fault + "kind = \"crash\"\nnode = \"coordinator\"\n"),
               Catch::Contains("the coordinator cannot be lost"));
    CHECK_THAT(mistake(fault + "kind = \"nan\"\nnode = \"server:0\"\n"),
               Catch::Contains("only workers have gradients"));
    CHECK_THAT(mistake(fault + "kind = \"torn_slice\"\nnode = \"worker:0\"\n"),
               Catch::Contains("only servers and shards have checkpoints"));
    CHECK(mistake(fault + "kind = \"restart\"\nnode = \"worker:0\"\nlasts_s = 1\n") ==
          "no mistake");
    CHECK_THAT(mistake(fault + "kind = \"drain\"\nnode = \"server:0\"\n"),
               Catch::Contains("only workers leave and join"));
    CHECK_THAT(mistake(fault + "kind = \"restart\"\nnode = \"server:0\"\n"),
               Catch::Contains("simulate.fault.0.lasts_s: must say how long"));
    CHECK_THAT(mistake(fault + "kind = \"pause\"\nnode = \"worker:0\"\n"),
               Catch::Contains("simulate.fault.0.lasts_s: must say how long"));
    CHECK_THAT(mistake(fault + "kind = \"crush\"\nnode = \"worker:0\"\n"),
               Catch::Contains("did you mean 'crash'?"));
    CHECK_THAT(mistake(fault + "kind = \"crash\"\n"), Catch::Contains("simulate.fault.0.node"));
    CHECK_THAT(mistake("[simulate.compute]\ndistribution = \"gama\"\n"),
               Catch::Contains("did you mean 'gamma'?"));
    CHECK_THAT(mistake("[simulate.compute]\nfactors = [1, \"2\"]\n"),
               Catch::Contains("simulate.compute.factors: must be a list like [1, 2.5]"));
    CHECK_THAT(mistake("[simulate.compute]\ndistribution = \"trace\"\n"),
               Catch::Contains("simulate.compute.trace: is missing"));
    CHECK_THAT(mistake("[simulate.staleness]\ndistribution = \"constant\"\nmean = 100\n"),
               Catch::Contains("must not be above most = 64"));
    const std::string imposed = "[simulate.staleness]\ndistribution = \"constant\"\nmean = 4\n";
    CHECK_THAT(mistake(imposed + "[staleness]\npolicy = \"dc_asgd\"\n"),
               Catch::Contains("does not go with staleness.policy = \"dc_asgd\""));
    CHECK_THAT(mistake(imposed + "[staleness]\npolicy = \"bounded_reject\"\ntau_max = 3\n"),
               Catch::Contains("must not be above 3, found 4"));
}

TEST_CASE("simulate keys: a server is all its shards") {
    Job job;
    job.servers = 2;
    job.shards_per_server = 3;
    const auto nodes = nodes_named("server:1", job);
    REQUIRE(nodes.has_value());
    CHECK(*nodes ==
          std::vector<NodeId>{node_of(ShardId{3}), node_of(ShardId{4}), node_of(ShardId{5})});
}

TEST_CASE(
    "simulate keys: live changes are read with their parameters, or refused with the reason") {
    const std::string change = "[[simulate.change]]\n";
    const auto job = parse_job(
        kJob + change + "policy = \"ssp\"\nat_s = 2\ns = 5\n" + change + "at_s = 3\n", "job.toml");
    INFO((job ? "" : job.error().text));
    REQUIRE(job.has_value());
    const auto again = parse_job(to_toml(*job), "resolved");
    REQUIRE(again.has_value());
    for (const Job* one : {&*job, &*again}) {
        const auto& changes = one->simulate.changes;
        REQUIRE(changes.size() == 2);
        CHECK(changes[0].policy == "ssp");
        CHECK(changes[0].at == std::chrono::seconds(2));
        REQUIRE(changes[0].parameters.size() == 1);
        CHECK(changes[0].parameters[0].second == "5");
        CHECK(changes[1].policy == "async");
    }
    CHECK_THAT(mistake(change + "policy = \"spp\"\n"), Catch::Contains("ssp"));
    const auto admitted = parse_job(kJob + change + "admission = \"step\"\n" + change +
                                        "admission = \"block\"\n" + change + "at_s = 3\n",
                                    "job.toml");
    INFO((admitted ? "" : admitted.error().text));
    REQUIRE(admitted.has_value());
    const auto twice = parse_job(to_toml(*admitted), "resolved");
    REQUIRE(twice.has_value());
    for (const Job* one : {&*admitted, &*twice}) {
        REQUIRE(one->simulate.changes.size() == 3);
        CHECK(one->simulate.changes[0].admission == Admission::step);
        CHECK(one->simulate.changes[1].admission == Admission::block);
        CHECK_FALSE(one->simulate.changes[2].admission);
    }
    CHECK_THAT(mistake(change + "policy = \"bsp\"\nadmission = \"block\"\n"),
               Catch::Contains("staleness.admission = \"block\" contradicts") &&
                   Catch::Contains("staleness.policy = 'bsp'"));
    // What an earlier one asks for holds for a later one, however they stand in the file.
    const std::string ahead = "[worker]\npush_pull = false\npull_ahead = 1\n";
    const std::string early = change + "admission = \"step\"\nat_s = 1\n";
    const std::string late = change + "policy = \"inverse\"\nat_s = 2\n";
    CHECK_THAT(mistake(ahead + late + early),
               Catch::Contains("simulate.change.0.policy: the job would be refused under "
                               "'inverse': worker.pull_ahead"));
    CHECK_THAT(
        mistake("[worker]\npush_pull = false\npull_ahead = 1\n" + change + "policy = \"bsp\"\n"),
        Catch::Contains("simulate.change.0.policy: the job would be refused under 'bsp': "
                        "worker.pull_ahead"));
    CHECK_THAT(mistake("[simulate.staleness]\ndistribution = \"constant\"\nmean = 2\n" + change +
                       "policy = \"ssp\"\n"),
               Catch::Contains("simulate.change.0.policy: 'ssp' and"));
}

}  // namespace
}  // namespace detente
