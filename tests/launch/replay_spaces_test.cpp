// Replays of runs in representation space, and of a model with gates: what is recorded is enough.
#include "launch/replay/replay.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

QuadraticOptions options_of(bool gated) {
    QuadraticOptions options;
    options.gated = gated;
    options.samples = 960;
    return options;
}

Recording recorded(const Job& job, bool gated, const TemporaryFolder& folder, Plan& plan,
                   std::uint64_t& digest) {
    SimulationSetup setup = setup_of(job, quadratics(options_of(gated)), folder / "run");
    plan = setup.plan;
    const RunDirectory run = setup.run;
    write_file(run.job_file(), to_toml(job));
    auto simulation = Simulation::create(std::move(setup));
    REQUIRE(simulation.has_value());
    const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
    INFO(outcome.error.text);
    REQUIRE_FALSE(outcome.failed);
    digest = (*simulation)->figures().digest;
    auto recording = read_recording(run.path, {});
    INFO((recording ? "" : recording.error().text));
    REQUIRE(recording.has_value());
    return *recording;
}

void require_replays(const std::vector<std::string>& overrides, bool gated) {
    const TemporaryFolder folder;
    Plan plan;
    std::uint64_t digest = 0;
    const Job job = job_of(kQuadraticJob, overrides);
    const Recording recording = recorded(job, gated, folder, plan, digest);
    auto replay = Replay::create(recording, plan, quadratics(options_of(gated)), {});
    REQUIRE(replay.has_value());
    const auto figures = (*replay)->run();
    INFO((figures ? "" : figures.error().text));
    REQUIRE(figures.has_value());
    CHECK(figures->hashes > 0);
    CHECK(figures->hashes + figures->carried == figures->gradients);
    CHECK((*replay)->digest() == digest);
}

// Losses on the way, steps that are begun anew, rejections.
std::vector<std::string> rough(const std::string& policy) {
    return {"staleness.policy=" + policy,
            "conflict.method=cagrad",
            "worker.clip_norm=0.5",
            "simulate.network.drop=0.05",
            "simulate.network.duplicate=0.05",
            "simulate.network.jitter_s=0.005",
            "simulate.compute.distribution=pareto",
            "worker.on_rejection=recompute"};
}

}  // namespace

TEST_CASE("replay: runs in representation space come out again bit for bit") {
    for (const char* policy : {"async", "bounded_reject", "easgd", "ringmaster", "fedbuff"}) {
        INFO(policy);
        auto overrides = rough(policy);
        overrides.emplace_back("conflict.space=representation");
        require_replays(overrides, false);
    }
}

TEST_CASE("replay: runs of a model with gates come out again bit for bit") {
    for (const char* policy : {"async", "bounded_reject", "easgd", "ringmaster", "fedbuff"}) {
        INFO(policy);
        require_replays(rough(policy), true);
    }
}

TEST_CASE("replay: gaps are refused for a model with gates") {
    const TemporaryFolder folder;
    Plan plan;
    std::uint64_t digest = 0;
    const Recording recording = recorded(job_of(kQuadraticJob), true, folder, plan, digest);
    ReplayOptions options;
    options.gaps = true;
    const auto replay = Replay::create(recording, plan, quadratics(options_of(true)), options);
    REQUIRE(replay.has_error());
    CHECK(replay.error().code == ErrorCode::not_supported);
}

}  // namespace detente::test
