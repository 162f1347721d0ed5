// What a worker says of the vectors it keeps, when it leaves and while it trains.
#include <catch2/catch.hpp>

#include "common/worker_file.h"
#include "tests/recorded_effects.h"
#include "tests/worker/one_tensor.h"
#include "worker/worker.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

// A worker that keeps vectors, and a shard, whose part the test plays.
class KeepingWorker {
  public:
    KeepingWorker() {
        auto job = std::make_shared<Job>();
        job->workers = 1;
        job->aggregator = {"moco", {}};
        WorkerSetup setup = one_tensor_setup(job);
        setup.checkpoint_dir = "/run/checkpoints";
        stop_deadline = job->stop_deadline;
        auto worker = Worker::create(std::move(setup));
        REQUIRE(worker.has_value());
        worker_ = std::move(*worker);
        world = std::make_unique<RecordedEffects>(*worker_);
        world->give(Started{});
        world->receive(kCoordinator, Welcome{});
        world->receive(kCoordinator, Go{});
    }
    // Asked to leave, it has nothing to settle: the last word is next.
    void leave() {
        world->receive(kCoordinator, Stop{"that is enough", true});
        const auto notes = world->of<CancelNote>();
        REQUIRE(notes.size() == 1);
        world->receive(node_of(kLeadShard), CancelReply{notes[0].second.step});
    }
    Ticket kept_work() const {
        REQUIRE(std::holds_alternative<KeptWork>(world->works.back()));
        return {world->works.size()};
    }
    void compute(Ticket ticket, bool any) {
        const std::string bytes = "a file";
        if (any) world->give(ComputePart{ticket, 0, copy_of(std::as_bytes(std::span(bytes)))});
        world->give(ComputeEnded{ticket, {KeptOutcome{}}});
    }
    bool leaving() const { return !world->of<LeaseRequest>().back().second.wants_more; }
    CheckpointReply said() const {
        const auto replies = world->of<CheckpointReply>();
        REQUIRE(replies.size() == 1);
        CHECK(replies[0].first == kCoordinator);
        return replies[0].second;
    }
    Status status() {
        world->give(TimerFired{{}, {1, 0}});
        return world->of<Status>().back().second;
    }

    std::unique_ptr<RecordedEffects> world;
    Nanos stop_deadline{};

  private:
    std::unique_ptr<Worker> worker_;
};

constexpr const char* kFile = "/run/checkpoints/worker-0.safetensors";

}  // namespace

TEST_CASE("worker: one that leaves says whether it has written a last word and where") {
    KeepingWorker worker;
    worker.leave();
    worker.compute(worker.kept_work(), true);
    REQUIRE(worker.world->stored.size() == 1);
    CHECK(worker.world->stored[0].path == kFile);
    CHECK_FALSE(worker.leaving());
    CHECK(worker.status().waiting_for == std::string("the disk to write ") + kFile);
    worker.world->give(Stored{{1}, {}});
    CHECK(worker.said().number == kLastWord);
    CHECK(worker.said().file == kFile);
    CHECK(worker.said().error.empty());
    CHECK(worker.leaving());
}

TEST_CASE("worker: one that keeps nothing yet says that it has no last word") {
    KeepingWorker worker;
    worker.leave();
    worker.compute(worker.kept_work(), false);
    CHECK(worker.world->stored.empty());
    CHECK(worker.said().number == kLastWord);
    CHECK(worker.said().file.empty());
    CHECK(worker.leaving());
}

TEST_CASE("worker: a last word that cannot be written is told of and keeps nobody") {
    KeepingWorker worker;
    worker.leave();
    worker.compute(worker.kept_work(), true);
    worker.world->give(Stored{{1}, fail(ErrorCode::io, "disk full")});
    CHECK(worker.said().file.empty());
    CHECK(worker.said().error == "disk full");
    CHECK(worker.leaving());
    CHECK_FALSE(worker.world->finished);
}

TEST_CASE("worker: a last word that hangs on the disk or in the computer has a deadline") {
    for (const bool on_disk : {true, false}) {
        KeepingWorker worker;
        worker.leave();
        const Ticket ticket = worker.kept_work();
        if (on_disk) worker.compute(ticket, true);
        worker.world->advance(worker.stop_deadline / 2 - seconds(2));
        CHECK(worker.world->of<CheckpointReply>().empty());
        CHECK_FALSE(worker.leaving());
        worker.world->advance(seconds(4));
        CHECK(worker.said().code == ErrorCode::timed_out);
        CHECK_THAT(worker.said().error,
                   Catch::Contains("worker:0 waited") && Catch::Contains(kFile) &&
                       Catch::Contains(on_disk ? "for the disk" : "for its computer") &&
                       Catch::Contains("deadlines.stop_s"));
        CHECK(worker.leaving());
        CHECK(worker.world->logs.back().first == LogLevel::warning);
        // What comes of it after all is nobody's, a failure included.
        if (on_disk) {
            worker.world->give(Stored{{1}, fail(ErrorCode::io, "disk gone")});
        } else {
            worker.compute(ticket, true);
            CHECK(worker.world->stored.empty());
        }
        CHECK(worker.said().code == ErrorCode::timed_out);
        CHECK_FALSE(worker.world->finished);
    }
}

TEST_CASE("worker: in the middle of training it answers with the file of that checkpoint") {
    KeepingWorker worker;
    worker.world->receive(kCoordinator, CheckpointRequest{7, "/run/checkpoints/7"});
    worker.compute(worker.kept_work(), true);
    worker.world->give(Stored{{1}, {}});
    CHECK(worker.said().number == 7);
    CHECK(worker.said().file == "/run/checkpoints/7/worker-0.safetensors");
}

}  // namespace detente::test
