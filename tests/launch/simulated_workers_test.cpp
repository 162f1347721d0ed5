// Workers that leave a simulated run and workers that take their places.
#include "tests/launch/left_behind.h"

namespace detente::test {
namespace {

const std::string kWorkerRestart = R"(
[[simulate.fault]]
kind = "restart"
node = "worker:1"
at_s = 0.3
lasts_s = 0.1
)";

const std::string kDrainAndJoin = R"(
[[simulate.fault]]
kind = "drain"
node = "worker:2"
at_s = 0.2
[[simulate.fault]]
kind = "join"
node = "worker:2"
at_s = 0.4
)";

// Gradients of this incarnation of a worker that some shard has applied.
std::size_t applied_of(const std::vector<LedgerEntry>& ledger, std::uint32_t worker,
                       std::uint32_t incarnation) {
    std::size_t count = 0;
    for (const LedgerEntry& entry : ledger) {
        const auto* push = std::get_if<VerdictRecord>(&entry.record);
        if (push == nullptr || push->worker != WorkerId{worker}) continue;
        if (push->incarnation != Incarnation{incarnation}) continue;
        count += push->rows.front().verdict == Verdict::applied ? 1 : 0;
    }
    return count;
}

}  // namespace

TEST_CASE("simulated workers: one that restarts takes its place as the next incarnation") {
    const SimulatedRun run =
        simulate(job_of(kQuadraticJob + kWorkerRestart, {"simulate.thorough=true"}));
    require_whole(run);
    const ProcessView* process = run.view.find(node_of(WorkerId{1}));
    REQUIRE(process != nullptr);
    CHECK(process->incarnation == Incarnation{2});
    CHECK(process->phase == Phase::stopped);  // at the end, in order
    CHECK(applied_of(run.ledger, 1, 1) > 0);
    CHECK(applied_of(run.ledger, 1, 2) > 0);
    CHECK(applied_of(run.ledger, 0, 2) == 0);
}

TEST_CASE("simulated workers: one drains without a loss and another joins in its place") {
    for (const char* policy : {"async", "ssp", "fedbuff"}) {
        INFO(policy);
        const SimulatedRun run =
            simulate(job_of(kQuadraticJob + kDrainAndJoin,
                            {std::string("staleness.policy=") + policy, "simulate.thorough=true"}));
        require_whole(run);
        if (std::string(policy) == "async") CHECK(run.summary.books.lost == 0);
        CHECK(run.view.find(node_of(WorkerId{2}))->incarnation == Incarnation{2});
        CHECK(applied_of(run.ledger, 2, 1) > 0);
        CHECK(applied_of(run.ledger, 2, 2) > 0);
    }
}

TEST_CASE("simulated workers: a place that nobody leaves is not taken") {
    const SimulatedRun run = simulate(job_of(kQuadraticJob + R"(
[[simulate.fault]]
kind = "join"
node = "worker:1"
at_s = 0.2
)"));
    require_whole(run);
    CHECK(run.view.find(node_of(WorkerId{1}))->incarnation == Incarnation{1});
}

TEST_CASE("simulated workers: runs with restarts drains and joins come out again bit for bit") {
    for (const std::string& faults : {kWorkerRestart, kDrainAndJoin}) {
        for (const char* policy : {"async", "dc_asgd", "dana_zero", "bsp", "ssp", "fedbuff"}) {
            INFO(policy << faults);
            require_replays({std::string("staleness.policy=") + policy, "worker.clip_norm=0.5"},
                            faults);
        }
        // A method that remembers, which whoever takes the place goes on with.
        INFO("famo" << faults);
        require_replays({"conflict.method=famo", "conflict.w_lr=0.5"}, faults);
    }
}

}  // namespace detente::test
