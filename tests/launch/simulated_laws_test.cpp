// Laws of staleness that must come out of whole simulated runs.
#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

// One coordinate of curvature 1, from w = 1; every message arrives at once.
const std::string kParabola = R"(
name = "parabola"
[model]
library = "builtin:quadratic"
[model.options]
dimension = 1
samples = 400
[data]
batch = 1
lease_batches = 1
[staleness]
policy = "async"
[rule]
name = "sgd"
learning_rate = 0.1
[ledger]
gradient_hashes = false
[simulate.network]
latency_s = 0
)";

std::string setting(const std::string& key, double value) {
    return key + "=" + std::to_string(value);
}

TEST_CASE(
    "law: with every gradient exactly τ old, f = λw²/2 is stable iff ηλ < 2sin(π/(2(2τ+1)))") {
    for (const int tau : {0, 1, 2, 5, 9}) {
        const double bound = 2 * std::sin(std::numbers::pi / (2 * (2 * tau + 1)));
        for (const double part : {0.93, 1.07}) {
            INFO("tau " << tau << ", learning rate at " << part << " of the bound");
            const SimulatedRun run =
                simulate(kParabola,
                         {"conflict.on_not_finite=skip", "simulate.staleness.distribution=constant",
                          setting("simulate.staleness.mean", tau),
                          setting("rule.learning_rate", part * bound)});
            require_whole(run);
            CHECK(run.summary.staleness.max == static_cast<std::uint64_t>(tau));
            constexpr double kFirstLoss = 0.5;
            if (part < 1) {
                CHECK(run.loss() < 0.1 * kFirstLoss);
            } else {
                CHECK(run.loss() > 10 * kFirstLoss);
            }
        }
    }
}

TEST_CASE("imposed staleness: its mean is the one asked for, whatever the distribution") {
    for (const char* distribution : {"constant", "uniform", "geometric", "poisson"}) {
        for (const std::uint32_t workers : {1U, 4U}) {
            INFO(distribution << ", " << workers << " workers");
            const SimulatedRun run = simulate(
                kParabola, {std::string("simulate.staleness.distribution=") + distribution,
                            "simulate.staleness.mean=4", "model.options.samples=4000",
                            "workers=" + std::to_string(workers), "rule.learning_rate=0.01"});
            require_whole(run);
            CHECK(run.summary.staleness.mean == Approx(4).margin(0.25));
            CHECK((run.summary.staleness.max == 4) == (std::string(distribution) == "constant"));
        }
    }
}

TEST_CASE("imposed staleness: every verdict is on a gradient exactly so old, for any workers") {
    // Also where many are done at one instant, and while messages are on their way.
    for (const char* distribution : {"constant", "exponential", "pareto"}) {
        for (const std::uint32_t workers : {2U, 5U}) {
            INFO(distribution << ", " << workers << " workers");
            const SimulatedRun run =
                simulate(kQuadraticJob,
                         {"workers=" + std::to_string(workers),
                          std::string("simulate.compute.distribution=") + distribution,
                          "simulate.staleness.distribution=constant", "simulate.staleness.mean=6",
                          "simulate.thorough=true", "simulate.network.latency_s=0.004"});
            require_whole(run);
            std::uint64_t rows = 0;
            for (const LedgerEntry& entry : run.ledger) {
                const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
                if (verdict == nullptr) continue;
                for (const auto& row : verdict->rows) {
                    REQUIRE(row.verdict == Verdict::applied);
                    REQUIRE(row.staleness == std::min<std::uint64_t>(6, row.version.value - 1));
                    ++rows;
                }
            }
            CHECK(rows == run.summary.books.applied);
        }
    }
}

// Every distribution there is; a trace of times that are far apart, and some the same.
const std::vector<std::string> kDistributions = {"constant",    "gamma",     "exponential",
                                                 "half_normal", "lognormal", "pareto",
                                                 "markov",      "index",     "trace"};

class Trace {
  public:
    Trace() { write_file(file(), "0 0.3\n0 0.1\n1 0.7\n1 0.05\n1 0.2\n2 0.4\n"); }
    std::string setting() const { return "simulate.compute.trace=" + file(); }

  private:
    std::string file() const { return folder_ / "times.txt"; }
    TemporaryFolder folder_;
};

TEST_CASE("law: Σ staleness + Σ ages in flight = (N−1)·updates, for any distribution of times") {
    const Trace trace;
    for (const std::string& distribution : kDistributions) {
        for (const std::uint32_t workers : {2U, 5U, 9U}) {
            INFO(distribution << ", " << workers << " workers");
            const SimulatedRun run = simulate(
                kParabola, {"simulate.compute.distribution=" + distribution, trace.setting(),
                            "workers=" + std::to_string(workers), "simulate.compute.spread=1",
                            "simulate.compute.alpha=1.5", "rule.learning_rate=0.001"});
            require_whole(run);
            std::map<std::uint32_t, std::uint64_t> base;  // of the gradient a worker computes
            std::uint64_t version = 0;
            std::uint64_t staleness = 0;
            std::uint64_t checked = 0;
            for (const LedgerEntry& entry : run.ledger) {
                if (const auto* pull = std::get_if<PullRecord>(&entry.record)) {
                    base[pull->worker.value] = pull->versions.front().value;
                }
                const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
                // At the end, workers without a batch are not busy any more.
                if (verdict == nullptr || version + 2 * workers > 400) continue;
                std::uint64_t ages = 0;
                for (const auto& [worker, from] : base) ages += version - from;
                if (base.size() == workers) {
                    REQUIRE(staleness + ages == (workers - 1) * version);
                    ++checked;
                }
                staleness += verdict->rows.front().staleness;
                version = verdict->rows.front().version.value;
            }
            CHECK(checked > 300);
        }
    }
}

TEST_CASE("law: with pull_ahead = 1 mean staleness goes to 2N−1 for any distribution of times") {
    const Trace trace;
    for (const std::string& distribution : kDistributions) {
        for (const std::uint32_t workers : {2U, 5U}) {
            INFO(distribution << ", " << workers << " workers");
            const SimulatedRun run =
                simulate(kParabola, {"simulate.compute.distribution=" + distribution,
                                     trace.setting(), "workers=" + std::to_string(workers),
                                     "simulate.compute.spread=1", "simulate.compute.alpha=1.5",
                                     "rule.learning_rate=0.0001", "model.options.samples=2000",
                                     "worker.pull_ahead=1", "worker.push_pull=false"});
            require_whole(run);
            CHECK(run.summary.staleness.mean == Approx(2.0 * workers - 1).margin(0.1));
        }
    }
}

TEST_CASE("law: M workers with exponential times on w²/2 are, in the mean, momentum 1 − 1/M") {
    constexpr int kWorkers = 4;
    constexpr double kRate = 0.4;
    constexpr std::size_t kUpdates = 12;
    constexpr std::size_t kRuns = 200;
    std::vector<double> sum(kUpdates + 1, 0.0);
    std::vector<double> squares(kUpdates + 1, 0.0);
    for (std::size_t seed = 1; seed <= kRuns; ++seed) {
        const SimulatedRun run = simulate(
            kParabola, {"workers=" + std::to_string(kWorkers), "seed=" + std::to_string(seed),
                        "model.options.samples=24", "simulate.compute.distribution=exponential",
                        setting("rule.learning_rate", kRate)});
        // The weights again, from how late each gradient was.
        std::vector<double> weights{1.0};
        for (const LedgerEntry& entry : run.ledger) {
            const auto* verdict = std::get_if<VerdictRecord>(&entry.record);
            if (verdict == nullptr || weights.size() > kUpdates) continue;
            const std::size_t at = weights.size() - 1;
            weights.push_back(weights.back() -
                              kRate * weights[at - verdict->rows.front().staleness]);
        }
        REQUIRE(weights.size() == kUpdates + 1);
        for (std::size_t t = 0; t <= kUpdates; ++t) {
            sum[t] += weights[t];
            squares[t] += weights[t] * weights[t];
        }
    }
    std::vector<double> expected{1.0, 1 - kRate};
    while (expected.size() <= kUpdates) {
        const double now = expected.back();
        const double before = expected[expected.size() - 2];
        expected.push_back(now + (1 - 1.0 / kWorkers) * (now - before) - kRate / kWorkers * now);
    }
    for (std::size_t t = 1; t <= kUpdates; ++t) {
        INFO("update " << t);
        const double mean = sum[t] / kRuns;
        const double variance = squares[t] / kRuns - mean * mean;
        CHECK(std::abs(mean - expected[t]) <= 4 * std::sqrt(variance / kRuns) + 1e-6);
    }
}

}  // namespace
}  // namespace detente::test
