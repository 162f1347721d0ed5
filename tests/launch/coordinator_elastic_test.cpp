// Workers that leave a running job, and workers that join it, as the coordinator sees them.
#include <catch2/catch.hpp>
#include <map>
#include <string>

#include "launch/coordinator.h"
#include "tests/launch/coordinator_scene.h"

namespace detente {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Scene;
using test::small_job;

TEST_CASE("coordinator: a worker that is asked to leave does and the others go on") {
    Scene scene;
    scene.train();
    const PeerChange leave{.node = Scene::worker(0), .reason = "me"};
    scene.world.receive(kCoordinator, leave);
    const auto stops = scene.world.of<Stop>();
    REQUIRE(stops.size() == 1);
    CHECK(stops[0].first == Scene::worker(0));
    CHECK(stops[0].second.drain);
    CHECK_THAT(stops[0].second.reason, Catch::Contains("me"));
    scene.world.receive(Scene::worker(0), Stopped{});
    CHECK(scene.node.view().stage == Stage::training);
    CHECK(scene.node.view().failures.empty());
    // The last one is not asked, nor is a shard, nor one that has left.
    scene.world.receive(kCoordinator, PeerChange{.node = Scene::worker(1), .reason = "me"});
    scene.world.receive(kCoordinator, PeerChange{.node = Scene::shard(1), .reason = "me"});
    scene.world.receive(kCoordinator, leave);
    CHECK(scene.world.of<Stop>().size() == 1);
}

TEST_CASE("coordinator: a worker that is gone while others go on leaves no loss behind") {
    const auto losses_of = [](Scene& scene, std::uint32_t worker, std::vector<double> losses) {
        Status status;
        status.losses = std::move(losses);
        scene.world.receive(Scene::worker(worker), status);
    };
    for (const bool lost : {true, false}) {
        INFO((lost ? "lost" : "asked to leave"));
        Scene scene;
        scene.train();
        losses_of(scene, 0, {9, 9});
        losses_of(scene, 1, {1, 3});
        CHECK(mean_losses(scene.node.view()) == std::vector<double>{5, 6});
        if (lost) {
            scene.world.give(PeerDown{Scene::worker(0), Incarnation{1}, "killed"});
        } else {
            scene.world.receive(kCoordinator, PeerChange{.node = Scene::worker(0), .reason = "me"});
            Stopped last;
            last.last.losses = {9, 9};
            scene.world.receive(Scene::worker(0), last);
        }
        CHECK(mean_losses(scene.node.view()) == std::vector<double>{1, 3});
        // The last one's stay: nobody goes on.
        scene.world.give(PeerDown{Scene::worker(1), Incarnation{1}, "killed"});
        CHECK(mean_losses(scene.node.view()) == std::vector<double>{1, 3});
    }
}

TEST_CASE("coordinator: workers that have done their part keep their losses to the end") {
    Scene scene;
    scene.train();
    for (std::uint32_t i = 0; i < 2; ++i) {
        Stopped last;
        last.last.losses = {1.0 + i, 2};
        scene.world.receive(Scene::worker(i), last);
    }
    CHECK(mean_losses(scene.node.view()) == std::vector<double>{1.5, 2});
}

TEST_CASE("coordinator: a new process takes a lost worker's place and what it counts is added") {
    Scene scene;
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"steps", 5},
                                       {"samples", 50},
                                       {"cosine.sum.a.b", 0.5},
                                       {"refused.transport.bad_checksum", 1},
                                       {"pull.torn_sum", 6},
                                       {"norm.sum.0", 4},
                                       {"weight.sum.0", 2},
                                       {"step_time.steps", 5},
                                       {"step_time.wire_ms", 10}});
    CHECK(scene.node.vacancies().empty());
    Event gone = PeerDown{Scene::worker(0), Incarnation{1}, "killed"};
    scene.world.give(std::move(gone));
    REQUIRE(scene.node.vacancies().size() == 1);
    CHECK(scene.node.vacancies()[0].node == Scene::worker(0));
    CHECK(scene.node.vacancies()[0].incarnation == Incarnation{2});
    const auto hello_as = [&](std::uint32_t incarnation) {
        Hello hello;
        hello.endpoint = {
            .node = Scene::worker(0), .incarnation = Incarnation{incarnation}, .host = "there"};
        hello.process = 77;
        hello.build = build_description();
        scene.world.receive(Scene::worker(0), hello);
    };
    const std::size_t welcomed = scene.world.of<Welcome>().size();
    const std::size_t started = scene.world.of<Go>().size();
    hello_as(1);  // the lost one's own, late: told to end
    CHECK(scene.world.of<Welcome>().size() == welcomed);
    REQUIRE(scene.world.of<Stop>().size() == 1);
    CHECK_FALSE(scene.world.of<Stop>()[0].second.drain);
    hello_as(2);
    REQUIRE(scene.world.of<Welcome>().size() == welcomed + 1);
    CHECK_FALSE(scene.world.of<Welcome>().back().second.initialise);
    CHECK(scene.world.of<Welcome>().back().second.peers.size() == 4);
    CHECK(scene.node.vacancies().empty());
    scene.world.receive(Scene::worker(0), Ready{});
    REQUIRE(scene.world.of<Go>().size() == started + 1);
    CHECK(scene.world.of<Go>().back().first == Scene::worker(0));
    scene.heartbeat(Scene::worker(0), {{"steps", 2},
                                       {"samples", 20},
                                       {"cosine.sum.a.b", -2},
                                       {"refused.transport.bad_checksum", 2},
                                       {"pull.torn_sum", 1},
                                       {"step_time.steps", 2},
                                       {"step_time.wire_ms", 3}});
    for (const auto& [name, value] :
         std::map<std::string, double>{{"cosine.sum.a.b", -1.5},
                                       {"refused.transport.bad_checksum", 3},
                                       {"pull.torn_sum", 7}}) {
        CAPTURE(name);
        CHECK(scene.node.view().find(Scene::worker(0))->value(name) == value);
    }
    CHECK(scene.node.view().find(Scene::worker(0))->value("steps") == 7.0);
    CHECK(scene.node.view().find(Scene::worker(0))->value("norm.sum.0") == 4.0);
    CHECK(scene.node.view().find(Scene::worker(0))->value("weight.sum.0") == 2.0);
    CHECK(scene.node.view().find(Scene::worker(0))->value("step_time.steps") == 7.0);
    CHECK(scene.node.view().find(Scene::worker(0))->value("step_time.wire_ms") == 13.0);
    CHECK(total_samples(scene.node.view()) == 70);
    CHECK(scene.node.view().find(Scene::worker(0))->endpoint.host == "there");
}

TEST_CASE("coordinator: workers join in places that nobody has had, up to the job's places") {
    Job job = small_job();
    job.places = 4;
    Scene scene(job);
    CHECK(scene.node.vacancies().empty());  // not before training
    scene.train();
    REQUIRE(scene.node.vacancies().size() == 2);
    CHECK(scene.node.vacancies()[0].node == Scene::worker(2));
    CHECK(scene.node.vacancies()[0].incarnation == Incarnation{1});
    scene.hello(Scene::worker(2));
    const auto welcomed = scene.world.of<Welcome>();
    CHECK(welcomed.back().first == Scene::worker(2));
    CHECK_FALSE(welcomed.back().second.initialise);
    CHECK(welcomed.back().second.peers.size() == 5);
    scene.world.receive(Scene::worker(2), Ready{});
    CHECK(scene.world.of<Go>().back().first == Scene::worker(2));
    REQUIRE(scene.node.vacancies().size() == 1);
    CHECK(scene.node.vacancies()[0].node == Scene::worker(3));
    scene.hello(Scene::worker(4));  // there is no such place
    CHECK(scene.world.of<Welcome>().size() == welcomed.size());
    CHECK(scene.node.view().find(Scene::worker(4)) == nullptr);
    scene.world.give(PeerDown{Scene::worker(2), Incarnation{1}, "killed"});
    REQUIRE(scene.node.vacancies().size() == 2);
    CHECK(scene.node.vacancies()[0].incarnation == Incarnation{2});
    CHECK(scene.node.view().stage == Stage::training);
}

TEST_CASE("coordinator: a worker that joins late and is never ready is lost by a deadline") {
    Job job = small_job();
    job.start_deadline = seconds(4);
    Scene scene(job);
    scene.train();
    scene.world.give(PeerDown{Scene::worker(0), Incarnation{1}, "killed"});
    Hello hello;
    hello.endpoint = {.node = Scene::worker(0), .incarnation = Incarnation{2}, .host = "there"};
    hello.build = build_description();
    scene.world.receive(Scene::worker(0), hello);
    for (int i = 0; i < 12; ++i) {
        scene.all([&](NodeId id) { scene.heartbeat(id); });
        scene.world.advance(milliseconds(500));
    }
    const auto& failures = scene.node.view().failures;
    REQUIRE(failures.size() == 2);
    CHECK_THAT(failures.back().text, Catch::Contains("not ready 4.0 s (deadlines.start_s)"));
    CHECK(scene.node.view().stage == Stage::training);
}

}  // namespace
}  // namespace detente
