// What `detente fuzz` draws. That every case is a job file: protocol_invariants_test.cpp.
#include "launch/fuzz_case.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/staleness/parameters.h"
#include "launch/fuzz.h"
#include "launch/job.h"
#include "launch/job_checks.h"
#include "tests/temporary_folder.h"

using namespace detente;

namespace {

Job drawn_with(std::uint64_t seed, std::uint64_t parts) {
    FuzzNames names;
    names.parts = parts;
    return fuzz_case(seed, names);
}

}  // namespace

TEST_CASE("fuzz: cases draw every parameter of every policy away from its default") {
    std::map<std::string, std::set<std::string>> seen;  // policy and parameter: its values
    for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
        const Job job = fuzz_case(seed);
        for (const auto& [name, value] : job.policy.parameters) {
            seen[job.policy.name + " " + name].insert(value);
        }
    }
    for (const std::string& policy : policy_names()) {
        for (const ParameterSpec& spec : parameter_specs(policy)) {
            INFO(policy << " " << spec.name);
            const std::set<std::string>& values = seen[policy + " " + spec.name];
            CHECK(values.size() > 1);
            for (const std::string& choice : spec.choices) CHECK(values.contains(choice));
        }
    }
}

TEST_CASE("fuzz: bounds of 0 and 1 are drawn often") {
    std::map<std::string, int> bounds;
    for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
        const Job job = fuzz_case(seed);
        if (job.policy.name == "bounded_reject") ++bounds[job.policy.parameters.front().second];
    }
    CHECK(bounds["0"] > 10);
    CHECK(bounds["1"] > 5);
}

TEST_CASE("fuzz: cases have policies for some tensors and many workers and shards kept apart") {
    int special = 0;
    int many = 0;
    int apart = 0;
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        const Job job = fuzz_case(seed);
        INFO("seed " << seed);
        REQUIRE(check_job(job).empty());
        special += job.policy_for.empty() ? 0 : 1;
        many += job.workers > 6 ? 1 : 0;
        REQUIRE(job.workers <= 12);
        apart += std::any_of(job.simulate.faults.begin(), job.simulate.faults.end(),
                             [](const FaultConfig& fault) {
                                 return fault.node.starts_with("shard:") &&
                                        fault.peer.starts_with("shard:");
                             })
                     ? 1
                     : 0;
    }
    CHECK(special > 30);
    CHECK(many > 30);
    CHECK(apart > 50);
}

TEST_CASE("fuzz: cases change their policy while they run, within a scope and to the other one") {
    std::map<std::pair<bool, bool>, int> changes;  // decides steps: before and after
    std::set<std::string> parameters;
    std::map<Admission, int> admissions;
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        const Job job = fuzz_case(seed);
        INFO("seed " << seed);
        REQUIRE(job.simulate.changes.size() <= 3);
        Admission admission = job.admission;
        bool steps = decides_steps(job);
        for (const SimulatedChangeConfig& one : job.simulate.changes) {
            Job changed = job;
            changed.policy = {one.policy, one.parameters};
            admission = one.admission.value_or(admission);
            changed.admission = admission;
            if (one.admission) ++admissions[admission];
            REQUIRE(make_policy(changed.policy).has_value());
            ++changes[{std::exchange(steps, decides_steps(changed)), steps}];
            for (const auto& [name, value] : one.parameters) parameters.insert(name + value);
        }
    }
    for (const bool before : {false, true}) {
        for (const bool after : {false, true}) {
            INFO((before ? "step" : "block") << " to " << (after ? "step" : "block"));
            CHECK(changes[{before, after}] > 8);
        }
    }
    CHECK(parameters.size() > 30);
    CHECK(admissions[Admission::step] > 20);
    CHECK(admissions[Admission::block] > 20);
}

TEST_CASE("fuzz: shrinking leaves out live changes of policy") {
    std::uint64_t seed = 1;
    while (fuzz_case(seed).simulate.changes.size() < 2) ++seed;
    const auto changes = [](const Job& job) { return !job.simulate.changes.empty(); };
    CHECK(shrink(fuzz_case(seed), changes, 1000).simulate.changes.size() == 1);
}

TEST_CASE("fuzz: what is drawn later moves nothing that was drawn before") {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        const Job then = drawn_with(seed, 9);
        Job now = fuzz_case(seed);
        INFO("seed " << seed);
        REQUIRE(then.policy_for.empty());
        REQUIRE(now.simulate.faults.size() >= then.simulate.faults.size());
        REQUIRE(now.workers >= then.workers);
        // All that the new parts change.
        now.policy.parameters = then.policy.parameters;
        now.policy_for.clear();
        now.model_options = then.model_options;
        now.workers = then.workers;
        now.simulate.faults.resize(then.simulate.faults.size());
        now.simulate.changes.clear();
        REQUIRE(to_toml(now) == to_toml(then));
    }
}

TEST_CASE("fuzz: shrinking goes back to a policy's own parameters and to one policy") {
    std::uint64_t seed = 1;
    while (fuzz_case(seed).policy_for.empty()) ++seed;
    const Job small = shrink(
        fuzz_case(seed), [](const Job&) { return true; }, 1000);
    CHECK(small.policy_for.empty());
    for (const ParameterSpec& spec : parameter_specs(small.policy.name)) {
        for (const auto& [name, value] : small.policy.parameters) {
            if (name == spec.name) CHECK(value == standard_text(spec));
        }
    }
}

TEST_CASE("fuzz: a failure is one line that ends with the command that reproduces it") {
    const FuzzVerdict late{FuzzEnd::no_progress, "line one\nline two"};
    CHECK(failure_line(7, late, "", false) ==
          "seed 7: no progress: line one line two; again: detente fuzz --seeds 7");
    CHECK(failure_line(7, late, "out/seed-7.toml", true) ==
          "seed 7: no progress: line one line two; again: detente fuzz --job out/seed-7.toml "
          "--check-determinism");
}

TEST_CASE("fuzz: a job file that a failure left ends with the failure's own exit code") {
    const TemporaryFolder folder;
    FuzzOptions options;
    options.job = folder / "case.toml";
    Job job = fuzz_case(1);
    job.simulate.faults.clear();
    SECTION("without progress") {
        job.simulate.limit = std::chrono::milliseconds(1);
        write_file(options.job, to_toml(job));
        CHECK(fuzz(options) == ExitCode::deadline);
    }
    SECTION("passed, and the same twice") {
        options.twice = true;
        write_file(options.job, to_toml(job));
        CHECK(fuzz(options) == ExitCode::ok);
    }
    SECTION("none") { CHECK(fuzz(options) != ExitCode::ok); }
}
