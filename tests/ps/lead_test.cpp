// The lead's half of step scope, event by event.
#include "ps/lead.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

struct Scene {
    explicit Scene(const std::string& policy, std::uint32_t shards = 2, std::uint32_t workers = 2) {
        auto made = make_policy({policy, {}});
        REQUIRE(made.has_value());
        rule = std::move(*made);
        std::vector<ShardId> ids;
        for (std::uint32_t i = 0; i < shards; ++i) ids.push_back(ShardId{i});
        lead = std::make_unique<Lead>(*rule, ids, shards, workers, Epoch{1});
    }
    static PushId push(std::uint32_t worker, std::uint64_t step, std::uint32_t incarnation = 1) {
        return {WorkerId{worker}, Incarnation{incarnation}, Step{step}};
    }
    void staged(std::uint32_t shard, const PushId& id, std::uint64_t version = 0) {
        StageNotice notice;
        notice.push = id;
        notice.version = version;
        lead->noticed(ShardId{shard}, notice, {});
    }
    void refused(std::uint32_t shard, const PushId& id) {
        StageNotice notice;
        notice.push = id;
        notice.staged = false;
        notice.reason = ErrorCode::not_finite;
        lead->noticed(ShardId{shard}, notice, {});
    }
    std::unique_ptr<const Policy> rule;
    std::unique_ptr<Lead> lead;
};

}  // namespace

TEST_CASE("lead: a push is decided when every shard has staged it, and once") {
    Scene scene("ssp");
    const PushId id = Scene::push(0, 1);
    scene.staged(0, id);
    scene.staged(0, id);
    CHECK(scene.lead->decisions().empty());
    CHECK(scene.lead->awaited() == std::vector<ShardId>{ShardId{1}});
    scene.staged(1, id);
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    REQUIRE(decisions[0].commits.size() == 1);
    CHECK(decisions[0].commits[0].pushes[0].push == id);
    CHECK(decisions[0].commits[0].version == 1);
    scene.staged(0, id);  // late doubles
    scene.staged(1, id);
    CHECK(scene.lead->decisions().empty());
    CHECK(scene.lead->undecided() == 0);
}

TEST_CASE("lead: one refusal aborts the push, whatever the others say") {
    Scene scene("bsp");
    const PushId id = Scene::push(0, 1);
    scene.staged(1, id);
    scene.refused(0, id);
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    REQUIRE(decisions[0].aborts.size() == 1);
    CHECK(decisions[0].aborts[0].reason == ErrorCode::not_finite);
    CHECK(decisions[0].aborts[0].advice == Advice::drop);
    scene.staged(1, id);
    CHECK(scene.lead->decisions().empty());
}

TEST_CASE("lead: decisions are numbered without gaps and kept until every shard has them") {
    Scene scene("ssp");
    for (std::uint64_t step = 1; step <= 3; ++step) {
        for (std::uint32_t shard = 0; shard < 2; ++shard) {
            scene.staged(shard, Scene::push(0, step));
            scene.staged(shard, Scene::push(1, step));
        }
    }
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 6);
    for (std::size_t i = 0; i < decisions.size(); ++i) {
        CHECK(decisions[i].sequence.number == i + 1);
    }
    scene.lead->applied(ShardId{0}, {Epoch{1}, 6});
    scene.lead->applied(ShardId{1}, {Epoch{1}, 4});
    CHECK(scene.lead->unconfirmed(ShardId{0}, 10).empty());
    const auto missing = scene.lead->unconfirmed(ShardId{1}, 10);
    REQUIRE(missing.size() == 2);
    CHECK(missing[0].sequence.number == 5);
    scene.lead->applied(ShardId{1}, {Epoch{9}, 6});  // another lead's
    CHECK_FALSE(scene.lead->pushes_confirmed());
    scene.lead->applied(ShardId{1}, {Epoch{1}, 6});
    CHECK(scene.lead->pushes_confirmed());
}

TEST_CASE(
    "lead: what a lost worker has not staged everywhere is aborted, the rest may be applied") {
    Scene scene("bsp", 2, 3);
    scene.staged(0, Scene::push(0, 1));
    scene.staged(1, Scene::push(0, 1));  // whole: kept by the policy
    scene.staged(0, Scene::push(0, 2));  // torn
    scene.lead->lost(WorkerId{0}, Incarnation{1});
    auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    REQUIRE(decisions[0].aborts.size() == 1);
    CHECK(decisions[0].aborts[0].push == Scene::push(0, 2));
    CHECK(decisions[0].aborts[0].reason == ErrorCode::peer_lost);
    for (std::uint32_t worker = 1; worker < 3; ++worker) {
        for (std::uint32_t shard = 0; shard < 2; ++shard) {
            scene.staged(shard, Scene::push(worker, 1));
        }
    }
    decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    CHECK(decisions[0].commits.at(0).pushes.size() == 3);
}

TEST_CASE("lead: a shard that staged a push before it heard of the loss is told to drop it") {
    Scene scene("bsp");
    scene.lead->lost(WorkerId{0}, Incarnation{1});
    scene.lead->decisions();
    scene.staged(1, Scene::push(0, 7));
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    CHECK(decisions[0].aborts.at(0).push == Scene::push(0, 7));
}

TEST_CASE("lead: staleness is counted from the shard that handed out the oldest weights") {
    Scene scene("bsp", 2, 1);
    scene.staged(0, Scene::push(0, 1), 0);
    scene.staged(1, Scene::push(0, 1), 0);
    CHECK(scene.lead->version() == 1);
    scene.lead->decisions();
    scene.staged(0, Scene::push(0, 2), 1);
    scene.staged(1, Scene::push(0, 2), 0);  // torn pull: one shard's weights are older
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    CHECK(decisions[0].aborts.size() == 1);  // bsp takes only fresh ones
}

}  // namespace detente
