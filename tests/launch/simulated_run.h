// A simulated run for tests: a job's text in, what came out.
#pragma once

#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "launch/describe.h"
#include "launch/job.h"
#include "launch/simulation.h"
#include "launch/summary.h"
#include "tests/sim/quadratic_engine.h"
#include "tests/temporary_folder.h"

namespace detente::test {

// Three asynchronous workers on a noisy quadratic of two tasks over two servers.
inline const std::string kQuadraticJob = R"(
name = "quadratic"
servers = 2
workers = 3
[model]
library = "builtin:quadratic"
[model.options]
dimension = 40
tensors = 4
tasks = 2
noise = 0.1
samples = 3200
[data]
batch = 16
[staleness]
policy = "async"
[rule]
name = "sgd"
learning_rate = 0.05
)";

struct SimulatedRun {
    Outcome outcome;
    ClusterView view;
    SimulationFigures figures;
    Summary summary;
    sim::World::Traffic traffic;
    std::vector<LedgerEntry> ledger;  // of all shards, shard by shard
    double loss(std::size_t task = 0) const { return summary.loss.at(task).second; }
};

inline std::vector<LedgerEntry> ledger_of(const RunDirectory& run, const Job& job) {
    std::vector<LedgerEntry> entries;
    for (std::uint32_t i = 0; i < job.shards(); ++i) {
        auto reader = LedgerReader::open(run.ledger_dir() + "/" +
                                         ledger_file_name(node_of(ShardId{i}), Incarnation{1}));
        REQUIRE(reader.has_value());
        LedgerEntry entry;
        for (auto more = reader->next(entry); more.has_value() && *more;
             more = reader->next(entry)) {
            entries.push_back(entry);
        }
    }
    return entries;
}

inline Job job_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
    auto job = parse_job(text, "job.toml", overrides);
    INFO((job ? "" : job.error().text));
    REQUIRE(job.has_value());
    return *job;
}

inline std::shared_ptr<EnginePool> engines_for(const Job& job, std::size_t threads = 1) {
    auto engines = EnginePool::create(
        threads, [&] { return load_engine(job.model_library, engine_options_of(job)); });
    INFO((engines ? "" : engines.error().text));
    REQUIRE(engines.has_value());
    return *engines;
}

// The tests' own quadratic (tests/sim/quadratic_engine.h), which may have gates.
inline std::shared_ptr<EnginePool> quadratics(const QuadraticOptions& options) {
    auto engines = EnginePool::create(1, [&]() -> Result<std::unique_ptr<Engine>> {
        return std::unique_ptr<Engine>(std::make_unique<QuadraticEngine>(options));
    });
    REQUIRE(engines.has_value());
    return *engines;
}

// Everything a simulation is made of, over a new run directory.
inline SimulationSetup setup_of(const Job& job, std::shared_ptr<EnginePool> engines,
                                const std::string& directory, std::size_t threads = 1) {
    SimulationSetup setup;
    setup.job = job;
    setup.engines = std::move(engines);
    auto plan = make_plan(setup.engines->description(), job);
    INFO((plan ? "" : plan.error().text));
    REQUIRE(plan.has_value());
    setup.plan = *plan;
    const auto run = make_run_directory(directory, job.name);
    REQUIRE(run.has_value());
    setup.run = *run;
    setup.threads = threads;
    return setup;
}
inline SimulationSetup setup_of(const Job& job, const std::string& directory,
                                std::size_t threads = 1) {
    return setup_of(job, engines_for(job, threads), directory, threads);
}

inline SimulatedRun simulate(const Job& job, std::size_t threads = 1, EventTrace* trace = nullptr) {
    const TemporaryFolder folder;
    SimulationSetup setup = setup_of(job, folder / "run", threads);
    const RunDirectory run = setup.run;
    setup.trace = trace;
    auto simulation = Simulation::create(std::move(setup));
    INFO((simulation ? "" : simulation.error().text));
    REQUIRE(simulation.has_value());
    SimulatedRun result;
    result.outcome = (*simulation)->run([] { return std::nullopt; });
    result.view = (*simulation)->view();
    result.figures = (*simulation)->figures();
    result.traffic = (*simulation)->world().traffic();
    result.summary = summary_of(result.view, result.outcome, run);
    result.summary.simulated =
        Summary::Simulated{result.figures.digest, result.figures.events, result.figures.virtual_s};
    result.ledger = ledger_of(run, job);
    return result;
}

inline SimulatedRun simulate(const std::string& text, const std::vector<std::string>& overrides,
                             std::size_t threads = 1) {
    return simulate(job_of(text, overrides), threads);
}

// The run ended as it should, and its books balance with nothing left in flight.
inline void require_whole(const SimulatedRun& run) {
    INFO(run.outcome.error.text);
    REQUIRE_FALSE(run.outcome.failed);
    REQUIRE(run.summary.books.balance("the run").has_value());
    REQUIRE(run.summary.books.in_flight == 0);
    REQUIRE(run.summary.books.applied > 0);
}

}  // namespace detente::test
