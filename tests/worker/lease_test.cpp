// A worker that waits for batches: what it takes for waiting, and what for silence.
#include <catch2/catch.hpp>

#include "tests/recorded_effects.h"
#include "tests/worker/one_tensor.h"
#include "worker/worker.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

// A worker that trains and holds no batch, and the lead shard, whose part the test plays.
class WaitingWorker {
  public:
    WaitingWorker() {
        auto job = std::make_shared<Job>();
        job->workers = 2;
        WorkerSetup setup = one_tensor_setup(job);
        setup.training_samples = 640;
        deadline = job->reply_deadline;
        auto worker = Worker::create(std::move(setup));
        REQUIRE(worker.has_value());
        worker_ = std::move(*worker);
        world = std::make_unique<RecordedEffects>(*worker_);
        world->give(Started{});
        world->receive(kCoordinator, Welcome{});
        world->receive(kCoordinator, Go{});
        REQUIRE(world->of<LeaseRequest>().size() == 1);
        lease = world->of<LeaseRequest>()[0].second;
    }
    // From then on it waits for nothing else.
    void answer_pull() {
        const auto pulls = world->of<PullRequest>();
        REQUIRE(pulls.size() == 1);
        const std::vector<float> weights(4, 1.0F);
        PullReply reply;
        reply.step = pulls[0].second.step;
        reply.request = pulls[0].second.request;
        reply.blocks.push_back({BlockId{0}, Epoch{1}, Version{0},
                                copy_of(std::as_bytes(std::span(weights))), std::nullopt});
        world->receive(node_of(kLeadShard), std::move(reply));
    }
    void say_wait() {
        Wait wait;
        wait.request = lease.request;
        wait.why = WaitFor::release;
        world->receive(node_of(kLeadShard), wait);
    }

    std::unique_ptr<RecordedEffects> world;
    LeaseRequest lease;
    Nanos deadline{};

  private:
    std::unique_ptr<Worker> worker_;
};

}  // namespace

TEST_CASE("worker: a lead shard that says nothing to a lease request is given up by name") {
    WaitingWorker worker;
    worker.answer_pull();
    worker.world->advance(ShardClient::kGiveUpAfter * worker.deadline + seconds(1));
    CHECK_FALSE(worker.world->finished);
    CHECK(worker.world->of<LeaseRequest>().size() > 20);
    worker.world->advance(worker.deadline);
    REQUIRE(worker.world->finished);
    CHECK(worker.world->finished->error.code == ErrorCode::timed_out);
    CHECK_THAT(worker.world->finished->error.text,
               Catch::Contains("shard:0, the lead shard") && Catch::Contains("deadlines.reply_s"));
    CHECK(worker.world->of<Stopped>().back().second.code == ErrorCode::timed_out);
}

TEST_CASE("worker: it waits for a lease as long as the lead shard says that it has to") {
    WaitingWorker worker;
    worker.answer_pull();
    for (int i = 0; i < 3 * ShardClient::kGiveUpAfter; ++i) {
        worker.world->advance(worker.deadline);
        worker.say_wait();
    }
    CHECK_FALSE(worker.world->finished);
    CHECK(worker.world->works.empty());
    worker.world->receive(node_of(kLeadShard), LeaseReply{worker.lease.request, {{0, 0, 1}}});
    CHECK(worker.world->works.size() == 1);
}

TEST_CASE("worker: a wait of an older lease request is no sign of life for this one") {
    WaitingWorker worker;
    worker.answer_pull();
    worker.lease.request += 7;
    for (int i = 0; i < ShardClient::kGiveUpAfter + 2; ++i) {
        worker.world->advance(worker.deadline);
        if (!worker.world->finished) worker.say_wait();
    }
    CHECK(worker.world->finished);
}

TEST_CASE("worker: after it was suspended nobody's silence counts for that time") {
    WaitingWorker worker;  // a pull and a lease are on their way
    worker.world->advance(worker.deadline);
    worker.world->now += seconds(600);
    worker.world->advance(worker.deadline);
    CHECK_FALSE(worker.world->finished);
    worker.world->advance(ShardClient::kGiveUpAfter * worker.deadline);
    CHECK(worker.world->finished);
}

}  // namespace detente::test
