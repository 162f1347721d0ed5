#include "launch/node_groups.h"

#include <catch2/catch.hpp>

namespace detente::test {
namespace {

Endpoint worker(std::uint32_t index, const std::string& host = "a") {
    Endpoint endpoint;
    endpoint.node = node_of(WorkerId{index});
    endpoint.host = host;
    return endpoint;
}

std::vector<std::vector<std::uint32_t>> members(const std::vector<Group>& groups) {
    std::vector<std::vector<std::uint32_t>> all;
    for (const Group& group : groups) {
        auto& one = all.emplace_back();
        for (const WorkerId id : group.members) one.push_back(id.value);
    }
    return all;
}

Job job_with(std::uint32_t workers, std::uint32_t nodes = 0) {
    Job job;
    job.workers = workers;
    job.nodes = nodes;
    job.sync_layers = {"*"};
    return job;
}

using Members = std::vector<std::vector<std::uint32_t>>;
constexpr Time kLater{std::chrono::seconds(9)};

TEST_CASE("node groups: the workers of a host are a node") {
    NodeGroups nodes(job_with(4));
    const auto groups =
        nodes.begin({worker(0, "a"), worker(1, "b"), worker(2, "a"), worker(3, "b")});
    REQUIRE(groups.has_value());
    CHECK(members(*groups) == Members{{0, 2}, {1, 3}});
    CHECK((*groups)[0].epoch != (*groups)[1].epoch);
}

TEST_CASE("node groups: virtual nodes are neighbours and end at the host") {
    NodeGroups nodes(job_with(5, 2));
    const auto groups =
        nodes.begin({worker(0), worker(1), worker(2), worker(3), worker(4, "elsewhere")});
    REQUIRE(groups.has_value());
    CHECK(members(*groups) == Members{{0, 1, 2}, {3}, {4}});
}

TEST_CASE("node groups: more workers than a group may have are refused by name") {
    NodeGroups nodes(job_with(60));
    std::vector<Endpoint> all;
    for (std::uint32_t i = 0; i < 60; ++i) all.push_back(worker(i));
    const auto groups = nodes.begin(all);
    REQUIRE(groups.has_error());
    CHECK_THAT(groups.error().text, Catch::Contains("launch.nodes"));
}

TEST_CASE("node groups: who is lost is left out once and who comes is taken in") {
    NodeGroups nodes(job_with(3));
    const GroupEpoch first = nodes.begin({worker(0), worker(1), worker(2)})->front().epoch;
    const std::vector<Group> without = nodes.gone(WorkerId{1});
    CHECK(members(without) == Members{{0, 2}});
    CHECK(without.front().epoch > first);
    CHECK(nodes.gone(WorkerId{1}).empty());
    CHECK(members(nodes.joined(worker(1))) == Members{{0, 1, 2}});
    CHECK(nodes.gone(WorkerId{0}).size() == 1);
    CHECK(nodes.gone(WorkerId{1}).size() == 1);
    CHECK(nodes.gone(WorkerId{2}).empty());  // nobody is left
}

TEST_CASE("node groups: of those that leave in order the others hear together at the next tick") {
    NodeGroups nodes(job_with(4));
    REQUIRE(nodes.begin({worker(0), worker(1), worker(2), worker(3)}).has_value());
    CHECK(nodes.gone(WorkerId{0}, true).empty());
    CHECK(nodes.gone(WorkerId{2}, true).empty());
    CHECK(members(nodes.tick({})) == Members{{1, 3}});
    CHECK(nodes.tick({}).empty());
    CHECK(nodes.gone(WorkerId{1}, true).empty());
    CHECK(members(nodes.joined(worker(0))) == Members{{0, 3}});
}

TEST_CASE("node groups: one that is missed goes on by itself and word of an old group is ignored") {
    NodeGroups nodes(job_with(3));
    const Group group = nodes.begin({worker(0), worker(1), worker(2)})->front();
    const LostGroup lost{group.epoch, {WorkerId{2}}, ErrorCode::timed_out, "late"};
    CHECK(members(nodes.lost(WorkerId{0}, lost, {})) == Members{{2}, {0, 1}});
    CHECK(nodes.lost(WorkerId{1}, lost, {}).empty());
    CHECK(members(nodes.groups()) == Members{{0, 1}, {2}});
    CHECK(nodes.gone(WorkerId{2}).empty());  // it was alone
    CHECK(members(nodes.groups()) == Members{{0, 1}});
}

TEST_CASE("node groups: one that was missed is taken in again and missed soon is away for longer") {
    NodeGroups nodes(job_with(3));
    Group group = nodes.begin({worker(0), worker(1), worker(2)})->front();
    Time now{};
    const auto miss = [&] {
        const LostGroup lost{group.epoch, {WorkerId{2}}, ErrorCode::timed_out, "late"};
        REQUIRE(members(nodes.lost(WorkerId{0}, lost, now)) == Members{{2}, {0, 1}});
    };
    const auto is_back_after = [&](Nanos away) {
        CHECK(nodes.tick(now + away - Nanos{1}).empty());
        const std::vector<Group> formed = nodes.tick(now + away);
        REQUIRE(members(formed) == Members{{0, 1, 2}});
        group = formed.front();
        now += away;
        CHECK(nodes.tick(now).empty());
        CHECK(members(nodes.groups()) == Members{{0, 1, 2}});
    };
    miss();
    is_back_after(NodeGroups::kReturnsAfter);
    now += std::chrono::seconds(1);
    miss();
    is_back_after(2 * NodeGroups::kReturnsAfter);
    now += std::chrono::hours(1);
    miss();
    is_back_after(NodeGroups::kReturnsAfter);
    for (int again = 0; again < 20; ++again) {  // each time at once
        miss();
        now += NodeGroups::kReturnsAtMost;
        group = nodes.tick(now).front();
        REQUIRE(group.members.size() == 3);
    }
}

TEST_CASE("node groups: one that was missed and then lost is not waited for") {
    NodeGroups nodes(job_with(3));
    const Group group = nodes.begin({worker(0), worker(1), worker(2)})->front();
    const LostGroup lost{group.epoch, {WorkerId{2}}, ErrorCode::timed_out, "late"};
    REQUIRE(members(nodes.lost(WorkerId{0}, lost, {})) == Members{{2}, {0, 1}});
    CHECK(nodes.gone(WorkerId{2}).empty());
    CHECK(nodes.tick(Time{NodeGroups::kReturnsAtMost}).empty());
}

TEST_CASE("node groups: a group that could not be formed is tried again without who says nothing") {
    NodeGroups nodes(job_with(3));
    const Group group = nodes.begin({worker(0), worker(1), worker(2)})->front();
    const LostGroup lost{group.epoch, {}, ErrorCode::timed_out, "not formed"};
    CHECK(nodes.lost(WorkerId{0}, lost, {}).empty());
    CHECK(nodes.lost(WorkerId{1}, lost, {}).empty());
    CHECK(nodes.tick({}).empty());  // worker 2 has some seconds to speak
    CHECK(members(nodes.tick(kLater)) == Members{{2}, {0, 1}});
}

TEST_CASE("node groups: what fails for all is tried three times and then each goes on alone") {
    NodeGroups nodes(job_with(2));
    Group group = nodes.begin({worker(0), worker(1)})->front();
    for (int attempt = 1; attempt <= NodeGroups::kMostAttempts; ++attempt) {
        const LostGroup lost{group.epoch, {}, ErrorCode::io, "no memory"};
        CHECK(nodes.lost(WorkerId{0}, lost, {}).empty());
        const std::vector<Group> next = nodes.lost(WorkerId{1}, lost, {});
        if (attempt < NodeGroups::kMostAttempts) {
            REQUIRE(members(next) == Members{{0, 1}});
            group = next.front();
        } else {
            CHECK(members(next) == Members{{0}, {1}});
        }
        CHECK(nodes.gave_up() == (attempt == NodeGroups::kMostAttempts));
    }
    CHECK(nodes.tick(Time{NodeGroups::kReturnsAtMost}).empty());
}

}  // namespace
}  // namespace detente::test
