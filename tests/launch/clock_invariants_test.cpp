#include "launch/clock_invariants.h"

#include <catch2/catch.hpp>

#include "common/staleness/policy.h"

namespace detente {
namespace {

Job ssp_job() {
    Job job;
    job.workers = 2;
    job.policy.name = "ssp";
    job.policy.parameters = {{"s", "1"}};
    return job;
}

// A lead of one shard and two workers, and the clocks that are watched.
class WatchedClock {
  public:
    WatchedClock() {
        auto policy = make_policy(ssp_job().policy);
        REQUIRE(policy.has_value());
        lead = std::make_unique<Lead>(std::move(*policy), std::vector<ShardId>{ShardId{0}}, 1, 2,
                                      Epoch{1});
        REQUIRE_FALSE(clocks->after(lead.get()));
    }
    std::optional<std::string> starts(std::uint32_t worker, std::uint64_t step) {
        PullRecord record;
        record.worker = WorkerId{worker};
        record.incarnation = Incarnation{1};
        record.step = Step{step};
        clocks->pulled(node_of(ShardId{0}), record);
        return clocks->after(lead.get());
    }
    void finishes(std::uint32_t worker, std::uint64_t step) {
        StageNotice notice;
        notice.push = {WorkerId{worker}, Incarnation{1}, Step{step}};
        notice.samples = 1;
        lead->noticed(ShardId{0}, notice, {});
    }
    std::unique_ptr<Lead> lead;
    std::unique_ptr<ClockInvariants> clocks = ClockInvariants::create(ssp_job());
};

TEST_CASE("clock invariants: only policies with clocks have them") {
    CHECK(ClockInvariants::create(ssp_job()) != nullptr);
    Job job = ssp_job();
    job.policy = {"dssp", {}};
    CHECK(ClockInvariants::create(job) != nullptr);
    job.policy = {"bsp", {}};
    CHECK(ClockInvariants::create(job) == nullptr);
}

TEST_CASE("clock invariants: a worker that is given weights past the bound is found") {
    WatchedClock watched;
    for (std::uint64_t step = 1; step <= 2; ++step) {
        REQUIRE_FALSE(watched.starts(0, step));  // clocks 0 and 1
        watched.finishes(0, step);
    }
    const auto wrong = watched.starts(0, 3);
    REQUIRE(wrong);
    CHECK_THAT(*wrong, Catch::Contains("starts clock 2 while the slowest is at 0"));
}

TEST_CASE("clock invariants: the slowest worker's progress lets the other start") {
    WatchedClock watched;
    for (std::uint64_t step = 1; step <= 2; ++step) {
        REQUIRE_FALSE(watched.starts(0, step));
        watched.finishes(0, step);
    }
    REQUIRE_FALSE(watched.starts(1, 1));
    watched.finishes(1, 1);
    CHECK_FALSE(watched.starts(0, 3));
}

TEST_CASE("clock invariants: a step that did not move its worker's clock is found") {
    WatchedClock watched;
    REQUIRE_FALSE(watched.starts(0, 1));
    const auto wrong = watched.starts(0, 2);  // and nothing was decided
    REQUIRE(wrong);
    CHECK_THAT(*wrong, Catch::Contains("starts step 2 at clock 0, where it started step 1"));
}

TEST_CASE("clock invariants: a step that was closed without a push moves no clock") {
    WatchedClock watched;
    REQUIRE_FALSE(watched.starts(0, 1));
    ClosedRecord closed;
    closed.worker = WorkerId{0};
    closed.step = Step{1};
    watched.clocks->closed(closed);
    CHECK_FALSE(watched.starts(0, 2));
}

TEST_CASE("lead: clocks of ssp and coefficients of kardam go on after a restore") {
    PolicyState saved;
    saved.workers[WorkerId{0}] = {9, 1, 0.5, 0.7, 0};
    saved.workers[WorkerId{1}] = {5, 0, 0.5, 0.7, 0};
    saved.workers[WorkerId{7}] = {2, 0, 0.5, 0.7, 0};
    auto ssp = make_policy(ssp_job().policy);
    REQUIRE(ssp.has_value());
    const Lead lead(std::move(*ssp), {ShardId{0}}, 1, 2, Epoch{2}, saved);
    // Worker 7 is none of this job's; worker 0 was held and begins at the bound.
    REQUIRE(lead.state().workers.size() == 2);
    CHECK(lead.state().workers.at(WorkerId{0})[0] == 6);
    CHECK(lead.state().workers.at(WorkerId{1})[0] == 5);
    PolicyState coefficients;
    coefficients.workers[WorkerId{1}] = {0.25, 1};
    coefficients.values = {1, 0};
    auto kardam = make_policy({"kardam", {}});
    REQUIRE(kardam.has_value());
    const Lead other(std::move(*kardam), {ShardId{0}}, 1, 2, Epoch{2}, coefficients);
    CHECK(other.state().workers.at(WorkerId{1}) == std::vector<double>{0.25, 1});
    CHECK(other.state().values == std::vector<double>{1, 0});
}

}  // namespace
}  // namespace detente
