// Checkpoints that hang, and workers' files in them, as the coordinator sees them.
#include "common/worker_file.h"
#include "tests/launch/coordinator_scene.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

// With a checkpoint every hundred samples.
Job saving_job() {
    Job job = small_job();
    job.checkpoint_every_samples = 100;
    return job;
}

// With a checkpoint that is scored, instead.
Job scoring_job() {
    Job job = small_job();
    job.evaluate_every_samples = 100;
    return job;
}

// Time goes by and everybody is heard of.
void pass(Scene& scene, Nanos duration) {
    for (Nanos passed{0}; passed < duration; passed += seconds(1)) {
        scene.all([&](NodeId id) {
            if (scene.node.view().find(id)->live()) scene.world.receive(id, Status{});
        });
        scene.world.advance(seconds(1));
    }
}

std::string last_warning(const Scene& scene) {
    for (std::size_t i = scene.world.logs.size(); i-- > 0;) {
        if (scene.world.logs[i].first == LogLevel::warning) return scene.world.logs[i].second;
    }
    return "";
}

CheckpointReply wrote(std::uint64_t number, const std::string& file) {
    return {.number = number, .file = file};
}

}  // namespace

TEST_CASE("coordinator: a checkpoint that hangs in the middle is given up and who is late named") {
    Scene scene(saving_job());
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    scene.world.receive(Scene::shard(0), CheckpointReply{.number = 1});
    pass(scene, kLeastSavingDeadline - seconds(2));
    CHECK(last_warning(scene).empty());
    pass(scene, seconds(4));
    CHECK_THAT(last_warning(scene), Catch::Contains("checkpoint 1: not done after 60.0 s") &&
                                        Catch::Contains("still at it: shard:1") &&
                                        !Catch::Contains("shard:0"));
    CHECK(scene.node.view().stage == Stage::training);
    // Its late answer is nobody's; the next one is made when it is due.
    scene.world.receive(Scene::shard(1), CheckpointReply{.number = 1});
    CHECK(scene.world.of<CheckpointRequest>().back().first.role == Role::shard);
    scene.heartbeat(Scene::worker(0), {{"samples", 200}});
    CHECK(scene.world.of<CheckpointRequest>().back().second.number == 2);
    scene.answer_checkpoint();
    CHECK(scene.node.view().checkpoints.size() == 1);
}

TEST_CASE("coordinator: a merge and an evaluation that hang in the middle are given up too") {
    Scene scene(scoring_job());
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    for (std::uint32_t i = 0; i < 2; ++i) {
        scene.world.receive(Scene::shard(i), CheckpointReply{.number = 1});
    }
    pass(scene, kLeastSavingDeadline + seconds(2));
    CHECK_THAT(last_warning(scene), Catch::Contains("still at it: the merge"));
    scene.heartbeat(Scene::worker(0), {{"samples", 200}});
    scene.answer_checkpoint();
    pass(scene, kLeastSavingDeadline + seconds(2));
    CHECK_THAT(last_warning(scene), Catch::Contains("the merge"));  // scoring takes its time
    pass(scene, kEvaluationDeadline);
    CHECK_THAT(last_warning(scene), Catch::Contains("still at it: the evaluation"));
    CHECK(scene.node.view().stage == Stage::training);
}

TEST_CASE("coordinator: one that hangs when training ends does not take the last one with it") {
    Scene scene(saving_job());
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    scene.stop_workers();
    CHECK(scene.node.view().stage == Stage::saving);
    pass(scene, scene.job_.stop_deadline + seconds(1));
    CHECK_THAT(last_warning(scene), Catch::Contains("checkpoint 1: not done after 10.0 s") &&
                                        Catch::Contains("shard:0") && Catch::Contains("shard:1"));
    CHECK(scene.node.view().stage == Stage::saving);
    scene.answer_checkpoint();
    scene.evaluated(1, 1);
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK_FALSE(scene.world.finished->failed);
    CHECK(scene.node.view().checkpoints.at(0).number == 2);
}

TEST_CASE("coordinator: an evaluation under way when training ends has the time it needs") {
    Scene scene(scoring_job());
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    scene.answer_checkpoint();
    scene.stop_workers();
    pass(scene, 3 * scene.job_.stop_deadline);
    CHECK(scene.node.view().stage == Stage::saving);
    scene.evaluated(1, 1);
    scene.answer_checkpoint();
    scene.evaluated(1, 1);
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK_FALSE(scene.world.finished->failed);
}

TEST_CASE("coordinator: why the last checkpoint after a signal was not written is told") {
    Scene scene;
    scene.train();
    scene.world.receive(kCoordinator, Stop{.reason = "SIGINT", .drain = true});
    scene.stop_workers();
    CHECK(scene.node.view().stage == Stage::saving);
    scene.world.receive(Scene::shard(0), CheckpointReply{.number = 1,
                                                         .code = ErrorCode::io,
                                                         .error = "/run/checkpoints/1: not a "
                                                                  "folder"});
    CHECK_THAT(last_warning(scene),
               Catch::Contains("checkpoint 1: shard:0: /run/checkpoints/1: not a folder"));
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::cancelled);
    CHECK_THAT(scene.world.finished->error.text,
               Catch::StartsWith("SIGINT; the last checkpoint was not written: checkpoint 1: "
                                 "shard:0: /run/checkpoints/1: not a folder") &&
                   Catch::EndsWith("; there is no checkpoint to resume from"));
}

TEST_CASE("coordinator: a last checkpoint that hangs names who is late and the one that stands") {
    Scene scene(saving_job());
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    scene.answer_checkpoint();
    scene.world.receive(kCoordinator, Stop{.reason = "SIGTERM", .drain = true});
    scene.stop_workers();
    scene.world.receive(Scene::shard(0), CheckpointReply{.number = 2});
    pass(scene, scene.job_.stop_deadline + seconds(1));
    CHECK_THAT(last_warning(scene),
               Catch::Contains("checkpoint 2: not done within 10.0 s (deadlines.stop_s)") &&
                   Catch::Contains("still at it: shard:1") && !Catch::Contains("shard:0"));
    scene.stop_shards();
    REQUIRE(scene.world.finished);
    CHECK(scene.world.finished->error.code == ErrorCode::cancelled);
    CHECK_THAT(scene.world.finished->error.text,
               Catch::StartsWith("SIGTERM; the last checkpoint was not written: checkpoint 2: ") &&
                   Catch::Contains("shard:1") &&
                   Catch::EndsWith("an earlier one stands; to go on from it: --resume "
                                   "/run/checkpoints/1"));
}

TEST_CASE("coordinator: it knows which workers have written a file of a checkpoint") {
    CoordinatorOptions options = Scene::options(saving_job(), 0);
    options.workers_keep_vectors = true;
    Scene scene(options);
    scene.train();
    scene.heartbeat(Scene::worker(0), {{"samples", 100}});
    CHECK(scene.world.of<CheckpointRequest>().size() == 4);
    CHECK(scene.node.worker_files().empty());
    scene.world.receive(Scene::worker(0), wrote(1, "/run/checkpoints/1/worker-0.safetensors"));
    scene.world.receive(Scene::worker(1), wrote(1, ""));  // it has nothing yet
    CHECK(scene.node.worker_files() == std::set<WorkerId>{{0}});
    for (std::uint32_t i = 0; i < 2; ++i) scene.world.receive(Scene::shard(i), wrote(1, ""));
    CHECK(scene.world.of<CheckpointRequest>().back().first == kMerger);
    CHECK(scene.node.worker_files() == std::set<WorkerId>{{0}});
    scene.world.receive(kMerger, wrote(1, ""));
    CHECK(scene.node.worker_files().empty());
    // Of those that leave it is the last word that counts; until another has their place.
    const auto leave = [&](std::uint32_t worker, const std::string& file) {
        scene.world.receive(Scene::worker(worker), wrote(kLastWord, file));
        scene.world.receive(Scene::worker(worker), Stopped{});
    };
    leave(1, "/run/checkpoints/worker-1.safetensors");
    CHECK(scene.node.worker_files() == std::set<WorkerId>{{1}});
    Hello hello;
    hello.endpoint = {.node = Scene::worker(1), .incarnation = Incarnation{2}, .host = "here"};
    hello.build = build_description();
    scene.world.receive(Scene::worker(1), hello);
    CHECK(scene.node.worker_files().empty());
    scene.world.receive(Scene::worker(1), Ready{});
    leave(1, "");
    leave(0, "/run/checkpoints/worker-0.safetensors");
    CHECK(scene.node.view().stage == Stage::saving);
    CHECK(scene.node.worker_files() == std::set<WorkerId>{{0}});
}

}  // namespace detente::test
