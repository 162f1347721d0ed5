// The lead's half of step scope, event by event.
#include "ps/lead.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

struct Scene {
    explicit Scene(const std::string& policy, std::uint32_t shards = 2, std::uint32_t workers = 2,
                   const decltype(PolicyConfig::parameters)& parameters = {}) {
        auto made = make_policy({policy, parameters});
        REQUIRE(made.has_value());
        std::vector<ShardId> ids;
        for (std::uint32_t i = 0; i < shards; ++i) ids.push_back(ShardId{i});
        lead = std::make_unique<Lead>(std::move(*made), ids, shards, workers, Epoch{1});
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
    void measured(std::uint32_t shard, const PushId& id, std::vector<BlockSums> sums) {
        StageNotice notice;
        notice.push = id;
        notice.version = lead->version();
        notice.sums = std::move(sums);
        lead->noticed(ShardId{shard}, notice, {});
    }
    void refused(std::uint32_t shard, const PushId& id) {
        StageNotice notice;
        notice.push = id;
        notice.staged = false;
        notice.reason = ErrorCode::not_finite;
        lead->noticed(ShardId{shard}, notice, {});
    }
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

TEST_CASE("lead: what shards measured is added up over all blocks, whichever shard has them") {
    // Coefficients 1 to 4 over both shards; over one of them alone they would all be alike.
    for (const std::uint32_t first : {0U, 1U}) {
        Scene scene("kardam", 2, 4);
        const double sums[] = {1, 4, 9, 16};
        for (std::uint32_t worker = 0; worker < 4; ++worker) {
            const PushId id = Scene::push(worker, 1);
            scene.measured(first, id, {{BlockId{0}, 0, 0.25}, {BlockId{2}, 0, 0.25}});
            scene.measured(1 - first, id, {{BlockId{1}, sums[worker], 0.5}});
            scene.measured(1 - first, id, {{BlockId{1}, 99, 0.5}});  // a late double
        }
        const auto decisions = scene.lead->decisions();
        REQUIRE(decisions.size() == 4);
        for (std::size_t i = 0; i < 3; ++i) CHECK(decisions[i].commits.size() == 1);
        CHECK(decisions[3].aborts.size() == 1);
    }
}

TEST_CASE("lead: a refused gradient has finished its worker's clock: nobody waits for it again") {
    Scene scene("ssp");  // s = 3
    for (std::uint64_t step = 1; step <= 4; ++step) {
        for (std::uint32_t shard = 0; shard < 2; ++shard) scene.staged(shard, Scene::push(0, step));
    }
    auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 4);
    CHECK(decisions[3].hold == std::vector{WorkerId{0}});
    scene.refused(1, Scene::push(1, 1));
    decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    CHECK(decisions[0].aborts.size() == 1);
    CHECK(decisions[0].release == std::vector{WorkerId{0}});
}

TEST_CASE("lead: a checkpoint is a decision of its own, in the order of the others") {
    Scene scene("ssp");
    for (std::uint32_t shard = 0; shard < 2; ++shard) scene.staged(shard, Scene::push(0, 1));
    scene.lead->checkpoint({7, "RUN/checkpoints/7"});
    for (std::uint32_t shard = 0; shard < 2; ++shard) scene.staged(shard, Scene::push(1, 1));
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 3);
    REQUIRE(decisions[1].checkpoints.size() == 1);
    CHECK(decisions[1].checkpoints[0].number == 7);
    CHECK(decisions[1].commits.empty());
    CHECK(decisions[1].sequence.number == 2);
}

// Found by `detente fuzz` (seeds 54970 and 57894 of b4524d8): a worker that was held when it came
// back as a member pushed what it had pulled before, and waited for its answer for ever.
TEST_CASE("lead: who was held before is let go by an event that holds and releases it") {
    Scene scene("capacity", 1, 3, {{"eta_s", "0"}, {"b", "2"}});
    scene.staged(0, Scene::push(1, 1));  // kept: worker 0 computes for the other half
    scene.lead->left(WorkerId{0});       // worker 1 computes instead
    (void)scene.lead->decisions();
    scene.lead->joined(WorkerId{0});
    const auto held = scene.lead->decisions();
    REQUIRE(held.size() == 1);
    CHECK(held[0].hold == std::vector<WorkerId>{WorkerId{0}});
    scene.staged(0, Scene::push(0, 1));
    const auto released = scene.lead->decisions();
    REQUIRE(released.size() == 1);
    CHECK(released[0].commits.size() == 1);
    CHECK(released[0].hold.empty());
    CHECK(released[0].release == std::vector<WorkerId>{WorkerId{0}});
}

TEST_CASE("lead: a change of policy settles what the one before kept, and the next decides") {
    Scene scene("bsp", 2, 3);
    for (std::uint32_t worker = 0; worker < 2; ++worker) {
        for (std::uint32_t shard = 0; shard < 2; ++shard) {
            scene.staged(shard, Scene::push(worker, 1));
        }
    }
    CHECK(scene.lead->decisions().empty());
    PolicyChange change{1, "ssp", {}, "test"};
    const Sequence decided = scene.lead->change(change, std::move(*make_policy({"ssp", {}})));
    auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    REQUIRE(decisions[0].commits.size() == 1);  // what had come, averaged
    CHECK(decisions[0].commits[0].pushes.size() == 2);
    CHECK(decisions[0].changes.size() == 1);
    CHECK(decisions[0].sequence == decided);
    for (std::uint32_t shard = 0; shard < 2; ++shard) scene.staged(shard, Scene::push(2, 1), 1);
    decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);  // ssp applies it alone
    CHECK(decisions[0].commits.at(0).pushes.size() == 1);
}

TEST_CASE("lead: a change of policy lets held workers go, and holds whom the next one holds") {
    Scene scene("ssp", 1, 2);
    for (std::uint64_t step = 1; step <= 4; ++step) scene.staged(0, Scene::push(0, step));
    CHECK(scene.lead->decisions().back().hold == std::vector{WorkerId{0}});
    scene.lead->change({1, "softsync", {}, "test"}, std::move(*make_policy({"softsync", {}})));
    const auto decisions = scene.lead->decisions();
    std::vector<WorkerId> released;
    for (const StageDecision& decision : decisions) {
        released.insert(released.end(), decision.release.begin(), decision.release.end());
    }
    CHECK(released == std::vector{WorkerId{0}});
}

// Found by `detente fuzz` (seeds 13845, 45640, 63257, 81962 of d502bb0): let go by the one and held
// by the next, a worker was handed the first part of its weights and then waited for the second,
// computing for all the new policy knew, which waited for it.
TEST_CASE("lead: a change of policy hands no weights to a worker that both policies hold") {
    const std::vector<std::pair<std::string, std::string>> one = {{"limit", "1"}};
    Scene scene("capacity", 1, 2, one);
    scene.staged(0, Scene::push(0, 1));
    scene.lead->pulled(WorkerId{0}, Step{2});
    (void)scene.lead->decisions();
    scene.lead->change({1, "capacity", one, "test"}, std::move(*make_policy({"capacity", one})));
    for (const StageDecision& decision : scene.lead->decisions()) {
        CHECK(decision.release == std::vector<WorkerId>{});
        CHECK(decision.hold == std::vector<WorkerId>{});
    }
}

TEST_CASE("lead: a change to block scope settles what is kept, and leaves the rest to the shards") {
    Scene scene("bsp", 2, 2);
    for (std::uint32_t shard = 0; shard < 2; ++shard) scene.staged(shard, Scene::push(0, 1));
    scene.staged(0, Scene::push(1, 1));  // on one of two
    scene.lead->change({1, "async", {}, "test"}, nullptr);
    const auto decisions = scene.lead->decisions();
    REQUIRE(decisions.size() == 1);
    REQUIRE(decisions[0].commits.size() == 1);
    CHECK(decisions[0].commits[0].pushes.size() == 1);
    CHECK(decisions[0].aborts.empty());
    CHECK(decisions[0].changes.size() == 1);
    CHECK(scene.lead->undecided() == 0);
    CHECK(scene.lead->members().empty());
    // What comes now is nobody's to decide.
    scene.staged(1, Scene::push(1, 1));
    scene.lead->joined(WorkerId{1});
    scene.lead->pulled(WorkerId{1}, Step{2});
    scene.lead->lost(WorkerId{1}, Incarnation{1});
    CHECK(scene.lead->decisions().empty());
    CHECK(scene.lead->undecided() == 0);
}

TEST_CASE("lead: notices of steps that were judged block by block are none of its own") {
    Scene scene("bsp", 2, 2);
    scene.lead->change({1, "async", {}, "test"}, nullptr);
    const Sequence decided =
        scene.lead->change_to_steps({2, "ssp", {}, "test"}, {Scene::push(0, 5)});
    const auto decisions = scene.lead->decisions();
    CHECK(decisions.back().sequence == decided);
    CHECK(decisions.back().cuts == std::vector{Scene::push(0, 5)});
    CHECK_FALSE(scene.lead->confirmed(decided.number));
    scene.lead->begin_steps(std::move(*make_policy({"ssp", {}})), {ShardId{0}, ShardId{1}}, 100);
    CHECK(scene.lead->version() == 100);
    for (std::uint32_t shard = 0; shard < 2; ++shard) scene.lead->applied(ShardId{shard}, decided);
    CHECK(scene.lead->confirmed(decided.number));
    scene.lead->joined(WorkerId{0});
    scene.staged(0, Scene::push(0, 5));  // a late one
    CHECK(scene.lead->undecided() == 0);
    for (std::uint32_t shard = 0; shard < 2; ++shard) scene.staged(shard, Scene::push(0, 6), 100);
    const auto next = scene.lead->decisions();
    REQUIRE(next.size() == 1);
    CHECK(next[0].commits.at(0).version == 101);
}

}  // namespace detente
