// Policies that are one another at some parameter must come out of whole runs the same, to the bit;
// tests/staleness has what single decisions show.
#include <string>
#include <vector>

#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

using Settings = std::vector<std::string>;

SimulatedRun under(Settings settings, const std::string& distribution) {
    settings.push_back("simulate.compute.distribution=" + distribution);
    settings.emplace_back("model.options.samples=1600");
    return simulate(kQuadraticJob, settings);
}

void require_equal(const Settings& one, const Settings& other) {
    for (const char* distribution : {"exponential", "pareto"}) {
        const SimulatedRun first = under(one, distribution);
        const SimulatedRun second = under(other, distribution);
        INFO(one.front() << " and " << other.front() << ", " << distribution);
        require_whole(first);
        require_whole(second);
        CHECK(first.figures.digest == second.figures.digest);
    }
}

const Settings kAsync = {"staleness.policy=async", "staleness.admission=step"};
const Settings kBsp = {"staleness.policy=bsp"};

TEST_CASE("equal runs: a bound that nothing reaches is async") {
    require_equal(kAsync, {"staleness.policy=ringmaster", "staleness.r=0"});
    require_equal(kAsync, {"staleness.policy=ringmaster", "staleness.r=100000"});
    require_equal(kAsync, {"staleness.policy=ssp", "staleness.s=100000"});
    require_equal(kAsync, {"staleness.policy=bounded_reject", "staleness.tau_max=100000",
                           "staleness.admission=step"});
    require_equal(kAsync, {"staleness.policy=sync_switch", "staleness.p=0"});
}

TEST_CASE("equal runs: fedbuff of one gradient is polynomial with the root") {
    require_equal({"staleness.policy=fedbuff", "staleness.k=1"},
                  {"staleness.policy=polynomial", "staleness.a=0.5", "staleness.admission=step"});
}

TEST_CASE("equal runs: bsp is backup_workers without any and sync_switch that never switches") {
    require_equal(kBsp, {"staleness.policy=backup_workers", "staleness.b=0"});
    require_equal(kBsp, {"staleness.policy=sync_switch", "staleness.p=1"});
}

TEST_CASE("equal runs: dssp that grants nothing is ssp and rennala of one gradient a bound of 0") {
    require_equal({"staleness.policy=dssp", "staleness.s_l=2", "staleness.r_max=0"},
                  {"staleness.policy=ssp", "staleness.s=2"});
    require_equal(
        {"staleness.policy=rennala", "staleness.b=1"},
        {"staleness.policy=bounded_reject", "staleness.tau_max=0", "staleness.admission=step"});
}

TEST_CASE("equal runs: of one worker ssp with s = 0 is bsp to the bit") {
    require_equal({"staleness.policy=ssp", "staleness.s=0", "workers=1"},
                  {"staleness.policy=bsp", "workers=1"});
}

// All gradients of a clock are taken at one point, so that N steps of a rate are one step of their
// average at N times the rate, but for rounding.
TEST_CASE("equal runs: ssp with s = 0 is bsp at as many times the rate as there are workers") {
    for (const char* distribution : {"exponential", "pareto"}) {
        INFO(distribution);
        const Settings more = {"model.options.samples=1584",  // 33 steps of 3 batches of 16
                               std::string("simulate.compute.distribution=") + distribution};
        const auto with = [&more](Settings settings) {
            settings.insert(settings.end(), more.begin(), more.end());
            return simulate(kQuadraticJob, settings);
        };
        const SimulatedRun ssp =
            with({"staleness.policy=ssp", "staleness.s=0", "rule.learning_rate=0.01"});
        const SimulatedRun bsp = with({"staleness.policy=bsp", "rule.learning_rate=0.03"});
        require_whole(ssp);
        require_whole(bsp);
        CHECK(ssp.summary.staleness.max == 2);
        CHECK(ssp.summary.staleness.mean == Approx(1));
        CHECK(bsp.summary.staleness.max == 0);
        for (const std::size_t task : {0U, 1U}) {
            CHECK(ssp.loss(task) == Approx(bsp.loss(task)).epsilon(1e-6));
        }
    }
}

}  // namespace
}  // namespace detente::test
