// Local members on one thread in virtual time, as a simulation hosts them.
#include "worker/collectives/local.h"

#include <catch2/catch.hpp>

#include "tests/collectives/scenarios.h"
#include "worker/collectives/local_group.h"

using namespace detente;
using namespace detente::testing;

namespace {

struct Cluster {
    explicit Cluster(std::size_t count) {
        const auto hub = std::make_shared<LocalHub>();
        for (std::size_t i = 0; i < count; ++i) {
            backends.push_back(std::make_unique<LocalBackend>(hub));
        }
        form(whole_group(1, count));
    }
    void form(const Group& group) {
        members.resize(backends.size());
        for (std::size_t i = 0; i < backends.size(); ++i) {
            if (group.index_of(worker(i)) == group.members.size()) continue;
            members[i].reset();
            auto formed = backends[i]->form(group, worker(i), Nanos{0});
            REQUIRE(formed.has_value());
            members[i] = std::move(*formed);
        }
    }
    std::vector<std::unique_ptr<CollectiveBackend>> backends;
    std::vector<std::unique_ptr<Collective>> members;
};

Time at_ms(std::int64_t value) { return Time(std::chrono::milliseconds(value)); }

}  // namespace

TEST_CASE("local: on one thread the last to join completes the key for all") {
    Cluster cluster(3);
    const CollectiveKey key = key_of(1, 1, 0);
    for (const std::size_t i : {2U, 0U, 1U}) {
        REQUIRE(cluster.members[i]->begin(key, share_of(i, key, 500, 1), at_ms(100)).has_value());
    }
    std::string first;
    for (auto& member : cluster.members) {
        const auto ends = member->poll(at_ms(1));
        REQUIRE(ends.size() == 1);
        if (first.empty()) first = text_of(ends[0]);
        CHECK(text_of(ends[0]) == first);
        CHECK(error_of(std::get<Averaged>(ends[0].result), key, {1, 1, 1}) < 1e-6);
        CHECK(member->poll(at_ms(2)).empty());
    }
}

TEST_CASE("local: a deadline is one of the time that is handed in") {
    Cluster cluster(2);
    const CollectiveKey key = key_of(1, 1, 0);
    REQUIRE(cluster.members[0]->begin(key, share_of(0, key, 10, 1), at_ms(100)).has_value());
    CHECK(cluster.members[0]->next_deadline() == at_ms(100));
    CHECK(cluster.members[0]->poll(at_ms(99)).empty());
    const auto ends = cluster.members[0]->poll(at_ms(100));
    REQUIRE(ends.size() == 1);
    CHECK(text_of(ends[0]) == "broken: timed_out, missing worker:5");
    CHECK(std::get<Broken>(ends[0].result).error.text ==
          "worker:5 had not joined epoch 1, step 1, bucket 0 when its deadline passed");
    CHECK_FALSE(cluster.members[0]->next_deadline());
}

TEST_CASE("local: a key that is complete is not broken by a loss after it") {
    Cluster cluster(2);
    const CollectiveKey key = key_of(1, 1, 0);
    for (const std::size_t i : {0U, 1U}) {
        REQUIRE(cluster.members[i]->begin(key, share_of(i, key, 10, 1), at_ms(100)).has_value());
    }
    CHECK(cluster.members[1]->poll(at_ms(1)).size() == 1);
    cluster.members[1].reset();
    const auto ends = cluster.members[0]->poll(at_ms(500));
    REQUIRE(ends.size() == 1);
    CHECK(std::holds_alternative<Averaged>(ends[0].result));
    REQUIRE(cluster.members[0]->broken());
    CHECK(text_of(*cluster.members[0]->broken()) == "broken: peer_lost, missing worker:5");
}

TEST_CASE("local: a member is in one group per epoch and epochs only grow") {
    Cluster cluster(2);
    const auto again = cluster.backends[0]->form(whole_group(1, 2), worker(0), Nanos{0});
    REQUIRE(again.has_error());
    CHECK(again.error().code == ErrorCode::wrong_epoch);
    cluster.form(whole_group(2, 2));
    const auto other = cluster.backends[1]->form(group_of(2, {0, 1}), worker(1), Nanos{0});
    CHECK(other.has_error());
    const auto stranger = cluster.backends[1]->form(group_of(3, {0, 2}), worker(1), Nanos{0});
    REQUIRE(stranger.has_error());
    CHECK(stranger.error().code == ErrorCode::internal);
}

TEST_CASE("local: members that are given different groups of one epoch are told") {
    const auto hub = std::make_shared<LocalHub>();
    LocalBackend one(hub);
    LocalBackend two(hub);
    const auto first = one.form(group_of(1, {0, 1}), worker(0), Nanos{0});
    REQUIRE(first.has_value());
    const auto second = two.form(group_of(1, {0, 1, 2}), worker(1), Nanos{0});
    REQUIRE(second.has_error());
    CHECK(second.error().code == ErrorCode::wrong_epoch);
}

TEST_CASE("local: who comes when all others have left learns that the group is broken") {
    const auto hub = std::make_shared<LocalHub>();
    const Group group = whole_group(1, 3);
    const CollectiveKey key = key_of(1, 1, 0);
    const auto formed = [&](std::size_t index, const Group& of) {
        return std::move(*LocalBackend(hub).form(of, worker(index), Nanos{0}));
    };
    formed(1, group)->give_up(key, fail(ErrorCode::over_limit, "it has no room"));
    {
        const auto first = formed(0, group);
        REQUIRE(first->begin(key, share_of(0, key, 10, 1), at_ms(100)).has_value());
        CHECK(first->poll(at_ms(1)).size() == 1);
    }
    const auto late = formed(2, group);
    REQUIRE(late->begin(key, share_of(2, key, 10, 1), at_ms(100)).has_value());
    const auto ends = late->poll(at_ms(2));
    REQUIRE(ends.size() == 1);
    CHECK(text_of(ends[0]) == "broken: io, missing worker:5");
}

TEST_CASE("local: a group is forgotten when its members are of a later one") {
    const auto hub = std::make_shared<LocalHub>();
    std::weak_ptr<LocalGroup> first = *hub->attach(whole_group(1, 2), worker(0));
    CHECK_FALSE(first.expired());
    const auto second = hub->attach(whole_group(2, 2), worker(0));
    CHECK_FALSE(first.expired());
    REQUIRE(hub->attach(whole_group(2, 2), worker(1)).has_value());
    CHECK(first.expired());
}
