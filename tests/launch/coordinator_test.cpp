#include "launch/coordinator.h"

#include <catch2/catch.hpp>

#include "tests/launch/coordinator_scene.h"

namespace detente {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Scene;
using test::small_job;

TEST_CASE("coordinator: welcomes all at once, worker 0 initialises, and Go waits for the last") {
    Scene scene;
    scene.hello(Scene::shard(0));
    scene.hello(Scene::worker(1));
    scene.hello(Scene::worker(0));
    CHECK(scene.world.sent.empty());
    scene.hello(Scene::shard(1));
    const auto welcomes = scene.world.of<Welcome>();
    REQUIRE(welcomes.size() == 4);
    for (const auto& [to, welcome] : welcomes) {
        CHECK(welcome.peers.size() == 4);
        CHECK(welcome.job == "name = \"small\"");
        CHECK(welcome.initialise == (to == Scene::worker(0)));
    }
    scene.world.receive(Scene::shard(0), Ready{});
    scene.world.receive(Scene::shard(1), Ready{});
    scene.world.receive(Scene::worker(0), Ready{});
    CHECK(scene.world.of<Go>().empty());
    scene.world.receive(Scene::worker(1), Ready{});
    REQUIRE(scene.world.of<Go>().size() == 2);
    CHECK(scene.world.of<Go>()[0].first == Scene::worker(0));
}

TEST_CASE("coordinator: it knows the memory of each process's machine from its hello") {
    Scene scene;
    Hello hello;
    hello.endpoint = {.node = Scene::shard(1), .tcp = "tcp://127.0.0.1:1", .host = "there"};
    hello.build = build_description();
    hello.memory_bytes = 64ULL << 30U;
    scene.world.receive(Scene::shard(1), hello);
    CHECK(scene.node.view().find(Scene::shard(1))->memory_bytes == 64ULL << 30U);
    CHECK(scene.node.view().find(Scene::shard(0))->memory_bytes == 0);
}

TEST_CASE("coordinator: restored shards need no first weights, and half of them is an error") {
    Scene scene;
    scene.all([&](NodeId id) { scene.hello(id, id.role == Role::shard); });
    for (const auto& [to, welcome] : scene.world.of<Welcome>()) CHECK_FALSE(welcome.initialise);

    Scene half;
    half.all([&](NodeId id) { half.hello(id, id == Scene::shard(0)); });
    CHECK(half.world.of<Welcome>().empty());
    half.all([&](NodeId id) { half.world.receive(id, Stopped{}); });
    REQUIRE(half.world.finished);
    CHECK(half.world.finished->error.code == ErrorCode::bad_checkpoint);
}

TEST_CASE("coordinator: who did not say hello is named when the start deadline passes") {
    Scene scene;
    scene.hello(Scene::shard(0));
    scene.hello(Scene::worker(0));
    scene.world.advance(scene.job_.start_deadline + seconds(1), [&] {
        scene.heartbeat(Scene::shard(0));
        scene.heartbeat(Scene::worker(0));
    });
    scene.world.receive(Scene::shard(0), Stopped{});
    scene.world.receive(Scene::worker(0), Stopped{});
    REQUIRE(scene.world.finished);
    const std::string text = scene.world.finished->error.text;
    CHECK(scene.world.finished->error.code == ErrorCode::timed_out);
    CHECK_THAT(text, Catch::Contains("shard:1") && Catch::Contains("worker:1"));
    CHECK_THAT(text, !Catch::Contains("shard:0") && !Catch::Contains("worker:0"));
}

TEST_CASE("coordinator: another build is refused, naming both hosts") {
    Scene scene;
    Hello hello;
    hello.endpoint.host = "there";
    hello.build = "0.0.9 wire 0";
    scene.world.receive(Scene::worker(1), hello);
    scene.world.receive(Scene::worker(1), Stopped{});
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::wrong_build);
    CHECK_THAT(scene.world.finished->error.text,
               Catch::Contains("there") && Catch::Contains("here") && Catch::Contains("0.0.9"));
}

TEST_CASE("coordinator: a shard on loopback beside another host is refused before training") {
    Scene scene;
    scene.all([&](NodeId from) {
        Hello hello;
        hello.endpoint = {.node = from, .tcp = "tcp://127.0.0.1:7001", .host = "here"};
        if (from == Scene::worker(1)) hello.endpoint = {.node = from, .host = "there"};
        hello.build = build_description();
        scene.world.receive(from, hello);
    });
    CHECK(scene.node.view().stage == Stage::stopping);
    scene.all([&](NodeId from) { scene.world.receive(from, Stopped{}); });
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::bad_job);
    CHECK_THAT(scene.world.finished->error.text,
               Catch::Contains("shard:0 on here listens on tcp://127.0.0.1:7001 only, so that "
                               "worker:1 on there cannot reach it") &&
                   Catch::Contains("transport.bind_address"));
}

TEST_CASE("coordinator: a clean run saves, evaluates, stops the shards and ends without error") {
    Scene scene;
    scene.train();
    scene.world.receive(Scene::worker(0), Stopped{});
    CHECK(scene.world.of<CheckpointRequest>().empty());
    scene.world.receive(Scene::worker(1), Stopped{});
    const auto requests = scene.world.of<CheckpointRequest>();
    REQUIRE(requests.size() == 2);
    CHECK(requests[0].second.directory == "/run/checkpoints/1");
    scene.answer_checkpoint();
    CHECK(scene.node.view().stage == Stage::evaluating);
    scene.evaluated(0.5, 0.75);
    CHECK(scene.world.of<Stop>().size() == 2);
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK_FALSE(scene.world.finished->failed);
    REQUIRE(scene.node.view().checkpoints.size() == 1);
    CHECK(scene.node.view().checkpoints[0].accuracy[1] ==
          std::pair<std::string, double>("b", 0.75));
    CHECK(scene.node.view().best == 1);
    CHECK(total_books(scene.node.view()).applied == 20);
}

TEST_CASE("coordinator: books that do not balance fail the run") {
    Scene scene;
    scene.train();
    scene.stop_workers();
    scene.answer_checkpoint();
    scene.evaluated(1, 1);
    Stopped bad;
    bad.last.values = {{"updates.computed", 10}, {"updates.applied", 9}};
    scene.world.receive(Scene::shard(0), bad);
    scene.world.receive(Scene::shard(1), Stopped{});
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->failed);
    CHECK(scene.world.finished->error.code == ErrorCode::internal);
}

// Two workers of a node whose group cannot be formed, as both say, as often as it is tried.
void cannot_form(Scene& scene) {
    for (int attempt = 1; attempt <= NodeGroups::kMostAttempts; ++attempt) {
        const auto asked = scene.world.of<FormGroup>();
        REQUIRE(!asked.empty());
        const Group group = asked.back().second.group;
        REQUIRE(group.members.size() == 2);
        for (std::uint32_t i = 0; i < 2; ++i) {
            scene.world.receive(Scene::worker(i),
                                LostGroup{group.epoch, {}, ErrorCode::io, "no device is left"});
        }
    }
    CHECK(scene.world.of<FormGroup>().back().second.group.members.size() == 1);
}

TEST_CASE("coordinator: a run whose layers were never in step fails and says why") {
    Job job = small_job();
    job.sync_layers = {"*"};
    for (const double rounds : {0.0, 7.0}) {
        Scene scene(job);
        scene.train();
        cannot_form(scene);
        for (std::uint32_t i = 0; i < 2; ++i) {
            Stopped stopped;
            stopped.last.values = {{"sync.rounds", rounds}};
            scene.world.receive(Scene::worker(i), stopped);
        }
        scene.answer_checkpoint();
        scene.evaluated(1, 1);
        scene.stop_shards();
        REQUIRE(scene.world.finished);
        // In step for a part of the run is what a node that breaks comes to.
        CHECK(scene.world.finished->failed == (rounds == 0));
        if (rounds > 0) continue;
        CHECK(scene.world.finished->error.code == ErrorCode::io);
        CHECK_THAT(
            scene.world.finished->error.text,
            Catch::Contains("never in step") && Catch::Contains("worker:0: no device is left"));
    }
}

TEST_CASE("coordinator: a node that never met because a worker was late fails no run") {
    Job job = small_job();
    job.sync_layers = {"*"};
    Scene scene(job);
    scene.train();
    const Group group = scene.world.of<FormGroup>().back().second.group;
    scene.world.receive(
        Scene::worker(0),
        LostGroup{group.epoch, {WorkerId{1}}, ErrorCode::timed_out, "worker:1 did not come"});
    scene.stop_workers();
    scene.answer_checkpoint();
    scene.evaluated(1, 1);
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK_FALSE(scene.world.finished->failed);
}

TEST_CASE("coordinator: a silent process is lost and named within its deadline") {
    Scene scene;
    scene.train();
    const Time frozen = scene.world.now;
    scene.world.advance(seconds(20), [&] {
        scene.heartbeat(Scene::shard(0));
        scene.heartbeat(Scene::worker(0));
        scene.heartbeat(Scene::worker(1));
    });
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::timed_out);
    CHECK_THAT(scene.world.finished->error.text, Catch::StartsWith("shard:1: no sign of life"));
    const Failure& first = *scene.node.view().first_failure();
    CHECK(first.node == Scene::shard(1));
    CHECK(first.at - frozen <= scene.job_.peer_deadline + 2 * scene.job_.heartbeat_interval);
}

TEST_CASE("coordinator: its own absence is nobody's silence") {
    Scene scene;
    scene.train();
    scene.world.now += seconds(60);  // suspended: no timer fired in between
    scene.world.advance(milliseconds(1));
    CHECK(scene.node.view().failures.empty());
    scene.world.advance(seconds(4));
    CHECK(scene.node.view().failures.empty());
    scene.world.advance(seconds(4));
    CHECK_FALSE(scene.node.view().failures.empty());
}

TEST_CASE("coordinator: its own absence uses up no deadline") {
    Scene scene;
    scene.all([&](NodeId id) { scene.hello(id); });
    REQUIRE(scene.node.view().stage == Stage::preparing);
    const auto alive = [&] { scene.all([&](NodeId id) { scene.heartbeat(id); }); };
    scene.world.advance(seconds(1), alive);
    scene.world.now += seconds(600);  // suspended while models load
    scene.world.advance(scene.job_.start_deadline - seconds(3), alive);
    CHECK(scene.node.view().stage == Stage::preparing);
    CHECK(scene.node.view().failures.empty());
    scene.world.advance(seconds(3), alive);
    CHECK(scene.node.view().stage == Stage::stopping);
}

TEST_CASE("coordinator: processes that gave it up while it was frozen are no bug of theirs") {
    Scene scene;
    scene.train();
    scene.world.now += seconds(60);  // frozen; what they said meanwhile is read now
    const Stopped cut_off{.failed = true,
                          .code = ErrorCode::cancelled,
                          .error = "the coordinator on here gave no sign of life"};
    scene.world.receive(Scene::worker(0), cut_off);
    CHECK(scene.node.view().stage == Stage::training);
    scene.world.receive(Scene::shard(0), Stopped{});
    scene.all([&](NodeId id) {
        if (scene.node.view().find(id)->live()) scene.world.receive(id, Stopped{});
    });
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::peer_lost);
    REQUIRE(scene.node.view().failures.size() == 2);
    CHECK(scene.node.view().failures[0].code == ErrorCode::peer_lost);
    CHECK_THAT(scene.node.view().failures[0].text, Catch::Contains("gave no sign of life"));
    CHECK_THAT(scene.node.view().failures[1].text, Catch::Contains("coordinator was silent"));
}

TEST_CASE("coordinator: a lost worker is told to all, and the rest goes on") {
    Scene scene;
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"steps", 12}});
    scene.world.give(PeerDown{Scene::worker(0), {1}, "killed by signal 9 (SIGKILL)"});
    const auto changes = scene.world.of<PeerChange>();
    REQUIRE(changes.size() == 4);  // the three others, and itself: it may be frozen only
    for (const auto& [to, change] : changes) {
        CHECK(change.node == Scene::worker(0));
        CHECK_FALSE(change.up);
    }
    CHECK(scene.node.view().failures.at(0).step == 12);
    CHECK(scene.node.view().stage == Stage::training);
    scene.world.receive(Scene::worker(1), Stopped{});
    scene.answer_checkpoint();
    scene.evaluated(1, 1);
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK_FALSE(scene.world.finished->failed);
}

TEST_CASE("coordinator: on_loss.worker = stop drains the others and still saves") {
    Job job = small_job();
    job.on_worker_loss = OnLoss::stop;
    Scene scene(job);
    scene.train();
    scene.world.give(PeerDown{Scene::worker(0), {1}, "killed by signal 9 (SIGKILL)"});
    REQUIRE(scene.world.of<Stop>().size() == 1);
    CHECK(scene.world.of<Stop>()[0].second.drain);
    scene.world.receive(Scene::worker(1), Stopped{});
    scene.answer_checkpoint();
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->failed);
    CHECK_THAT(scene.world.finished->error.text, Catch::Contains("worker:0"));
    CHECK(scene.node.view().checkpoints.size() == 1);
}

TEST_CASE("coordinator: with no worker left the run fails, but its weights are saved") {
    Scene scene;
    scene.train();
    scene.world.give(PeerDown{Scene::worker(0), {1}, "killed by signal 9 (SIGKILL)"});
    Stopped failed{.failed = true, .code = ErrorCode::bad_dataset, .error = "a file is gone"};
    scene.world.receive(Scene::worker(1), failed);
    scene.answer_checkpoint();
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK_THAT(scene.world.finished->error.text,
               Catch::Contains("no worker is left") && Catch::Contains("worker:0"));
}

TEST_CASE("coordinator: a worker that finds NaN ends the run though others could go on") {
    const Stopped failed{
        .failed = true, .code = ErrorCode::not_finite, .error = "the loss of task a is NaN"};
    Scene scene;
    scene.train();
    scene.world.receive(Scene::worker(1), failed);
    CHECK(scene.node.view().stage == Stage::draining);
    REQUIRE(scene.world.of<Stop>().size() == 1);
    CHECK(scene.world.of<Stop>()[0].first == Scene::worker(0));
    CHECK(scene.world.of<Stop>()[0].second.drain);
    CHECK_THAT(scene.world.of<Stop>()[0].second.reason,
               Catch::Contains("conflict.on_not_finite = \"stop\""));
    scene.world.receive(Scene::worker(0), Stopped{});
    scene.answer_checkpoint();  // and no evaluation
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::not_finite);
    CHECK(scene.world.finished->error.text == "worker:1: the loss of task a is NaN");

    Job job = small_job();
    job.on_not_finite = OnNotFinite::skip;  // then it is a worker lost as any other
    Scene skipping(job);
    skipping.train();
    skipping.world.receive(Scene::worker(1), failed);
    CHECK(skipping.node.view().stage == Stage::training);
}

TEST_CASE("coordinator: a lost shard ends the job in seconds and names the checkpoint") {
    Job job = small_job();
    job.checkpoint_every_samples = 100;
    Scene scene(job);
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 128}});
    scene.answer_checkpoint();
    const Time killed = scene.world.now;
    scene.world.give(PeerDown{Scene::shard(1), {1}, "killed by signal 9 (SIGKILL)"});
    for (const auto& [to, stop] : scene.world.of<Stop>()) CHECK_FALSE(stop.drain);
    scene.world.advance(seconds(10));  // the others never answer
    REQUIRE(scene.world.finished);
    CHECK(scene.node.view().now - killed <= seconds(10));
    CHECK_THAT(scene.world.finished->error.text,
               Catch::Contains("shard:1") && Catch::Contains("SIGKILL") &&
                   Catch::Contains("--resume /run/checkpoints/1"));
}

TEST_CASE(
    "coordinator: a resumed run that loses a shard before its first checkpoint names the old one") {
    CoordinatorOptions options = Scene::options(small_job(), 0);
    options.resumed_from = "/old/checkpoints/2";
    Scene scene(options);
    scene.train();
    scene.world.give(PeerDown{Scene::shard(1), {1}, "killed by signal 9 (SIGKILL)"});
    scene.world.advance(seconds(10));
    REQUIRE(scene.world.finished);
    CHECK_THAT(scene.world.finished->error.text,
               Catch::Contains("shard:1") && Catch::Contains("--resume /old/checkpoints/2"));
}

TEST_CASE("coordinator: an error that follows from another's death does not come first") {
    Scene scene;
    scene.train();
    Stopped fell{.failed = true, .code = ErrorCode::peer_lost, .error = "shard:1 does not answer"};
    scene.world.receive(Scene::worker(0), fell);
    scene.world.give(PeerDown{Scene::shard(1), {1}, "killed by signal 11 (SIGSEGV)"});
    CHECK(scene.node.view().failures.size() == 2);
    CHECK(scene.node.view().first_failure()->node == Scene::shard(1));
}

TEST_CASE("coordinator: the first signal drains and saves, the second ends at once") {
    Scene scene;
    scene.train();
    scene.world.receive(kCoordinator, Stop{.reason = "SIGINT", .drain = true});
    CHECK(scene.node.view().stage == Stage::draining);
    CHECK(scene.world.of<Stop>().size() == 2);
    scene.stop_workers();
    scene.answer_checkpoint();  // and no evaluation
    CHECK(scene.node.view().stage == Stage::stopping);
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::cancelled);
    CHECK(scene.node.view().checkpoints.size() == 1);

    Scene hasty;
    hasty.train();
    hasty.world.receive(kCoordinator, Stop{.reason = "SIGINT", .drain = true});
    hasty.world.receive(kCoordinator, Stop{.reason = "SIGINT twice", .drain = false});
    hasty.all([&](NodeId id) { hasty.world.receive(id, Stopped{}); });
    REQUIRE(hasty.world.finished);
    CHECK(hasty.world.finished->error.code == ErrorCode::cancelled);
}

TEST_CASE("coordinator: a worker that will not drain is named, and the checkpoint written") {
    Scene scene;
    scene.train();
    scene.world.receive(kCoordinator, Stop{.reason = "SIGTERM", .drain = true});
    scene.world.receive(Scene::worker(0), Stopped{});
    scene.world.advance(scene.job_.stop_deadline + milliseconds(1), [&] {
        scene.heartbeat(Scene::worker(1));
        scene.heartbeat(Scene::shard(0));
        scene.heartbeat(Scene::shard(1));
    });
    CHECK(scene.node.view().stage == Stage::saving);
    CHECK(scene.node.view().failures.at(0).node == Scene::worker(1));
    scene.answer_checkpoint();
    CHECK(scene.node.view().checkpoints.size() == 1);
}

TEST_CASE("coordinator: evaluates during training, keeps the best, and training goes on") {
    Job job = small_job();
    job.evaluate_every_samples = 100;
    job.checkpoints_kept = 1;
    Scene scene(job);
    scene.train();
    const double accuracies[] = {0.9, 0.4, 0.5};
    for (int round = 0; round < 3; ++round) {
        scene.heartbeat(Scene::worker(0), {{"samples", 100.0 * (round + 1)}});
        scene.heartbeat(Scene::worker(0), {{"samples", 100.0 * (round + 1) + 1}});
        scene.answer_checkpoint();
        CHECK(scene.node.view().stage == Stage::training);
        scene.evaluated(accuracies[round], accuracies[round]);
    }
    CHECK(scene.node.view().checkpoints.size() == 3);
    CHECK(scene.node.view().best == 1);
    CHECK(scene.node.superfluous_checkpoints() == std::vector<std::uint64_t>{2});
    // Training that ends while an evaluation runs waits for it, then saves once more.
    scene.heartbeat(Scene::worker(0), {{"samples", 400}});
    scene.answer_checkpoint();
    scene.stop_workers();
    CHECK(scene.node.view().stage == Stage::saving);
    scene.evaluated(0.6, 0.6);
    scene.answer_checkpoint();
    CHECK(scene.node.view().stage == Stage::evaluating);
}

TEST_CASE("coordinator: a resumed run goes on counting samples from its checkpoint") {
    Job job = small_job();
    job.checkpoint_every_samples = 100;
    Scene scene(job, 250);
    scene.train();
    CHECK(total_samples(scene.node.view()) == 250);
    scene.heartbeat(Scene::worker(0), {{"samples", 49}});
    CHECK(scene.world.of<CheckpointRequest>().empty());  // the next is due at 300
    scene.heartbeat(Scene::worker(0), {{"samples", 50}});
    CHECK(scene.world.of<CheckpointRequest>().size() == 2);
    scene.answer_checkpoint();
    CHECK(scene.node.view().checkpoints.at(0).samples == 300);
}

TEST_CASE("coordinator: a checkpoint that cannot be written in the middle is only a warning") {
    Job job = small_job();
    job.checkpoint_every_samples = 100;
    Scene scene(job);
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    scene.world.receive(Scene::shard(0),
                        CheckpointReply{.number = 1, .code = ErrorCode::io, .error = "disk full"});
    CHECK(scene.node.view().stage == Stage::training);
    CHECK(scene.world.logs.back().first == LogLevel::warning);
    // At the end it is an error.
    scene.stop_workers();
    scene.world.receive(Scene::shard(0),
                        CheckpointReply{.number = 2, .code = ErrorCode::io, .error = "disk full"});
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::io);
    CHECK_THAT(scene.world.finished->error.text, Catch::Contains("disk full"));
}

}  // namespace
TEST_CASE("coordinator: a change of policy goes to the lead shard while training runs, and back") {
    Scene scene;
    scene.world.receive(kCoordinator, PolicyChange{1, "ssp", {}, "me"});
    auto answers = scene.world.of<PolicyChanged>();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].first == kCoordinator);
    CHECK(answers[0].second.request == 1);
    CHECK(answers[0].second.error.find("training") != std::string::npos);
    CHECK(scene.world.of<PolicyChange>().empty());

    scene.train();
    scene.world.receive(kCoordinator, PolicyChange{2, "ssp", {{"s", "1"}}, "me"});
    const auto asked = scene.world.of<PolicyChange>();
    REQUIRE(asked.size() == 1);
    CHECK(asked[0].first == Scene::shard(0));
    CHECK(asked[0].second.parameters.size() == 1);
    scene.world.receive(Scene::shard(0), PolicyChanged{2, {Epoch{1}, 9}, {}, ""});
    answers = scene.world.of<PolicyChanged>();
    REQUIRE(answers.size() == 2);
    CHECK(answers[1].second.sequence.number == 9);
}

}  // namespace detente
