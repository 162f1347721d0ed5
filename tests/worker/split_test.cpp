// A worker whose steps are of one task each (worker.split_tasks).
#include <catch2/catch.hpp>

#include "common/partition/task_placement.h"
#include "tests/recorded_effects.h"
#include "worker/engine_computer.h"
#include "worker/worker.h"

namespace detente::test {
namespace {

constexpr BlockId kTrunk{0};
constexpr BlockId kHeadA{1};
constexpr BlockId kHeadB{2};
constexpr TaskSet kA{1};
constexpr TaskSet kB{2};

ModelDescription two_headed() {
    ModelDescription model;
    model.model = "two heads";
    model.tasks = {"a", "b"};
    model.training_samples = 640;
    model.tensors = {{"trunk.weight", {5}, TaskSet{3}},
                     {"heads.a.weight", {3}, kA},
                     {"heads.b.weight", {4}, kB}};
    return model;
}

Payload floats(std::size_t elements, float value) {
    auto buffer = std::make_shared<AlignedBuffer>(elements * sizeof(float));
    std::fill_n(buffer->floats().begin(), elements, value);
    return payload_of(std::move(buffer));
}

// One worker of two, and one shard, whose part the test plays.
class LoneWorker {
  public:
    explicit LoneWorker(std::uint32_t id = 0) {
        job_ = std::make_shared<Job>();
        job_->workers = 2;
        job_->split_tasks = true;
        job_->aggregator = {"sum", {}};
        job_->batch_samples = 64;
        auto plan = make_plan(two_headed(), *job_);
        REQUIRE(plan.has_value());
        plan_ = std::make_shared<Plan>(std::move(*plan));
        WorkerSetup setup;
        setup.id = WorkerId{id};
        setup.job = job_;
        setup.plan = plan_;
        setup.tasks = two_headed().tasks;
        auto worker = Worker::create(std::move(setup));
        REQUIRE(worker.has_value());
        worker_ = std::move(*worker);
        world = std::make_unique<RecordedEffects>(*worker_);
        world->give(Started{});
        world->receive(kCoordinator, Welcome{});
        world->receive(kCoordinator, Go{});
    }
    // Answers the last pull with weights of this version.
    void give_weights(std::uint64_t version = 0) {
        const PullRequest request = world->of<PullRequest>().back().second;
        PullReply reply;
        reply.step = request.step;
        reply.request = request.request;
        reply.credit_bytes = 1U << 20U;
        for (const BlockId id : request.blocks) {
            const std::size_t elements = plan_->block(id).elements;
            reply.blocks.push_back({id, Epoch{1}, Version{version}, floats(elements, 1), {}});
        }
        world->receive(node_of(kLeadShard), reply);
    }
    void grant(std::vector<BatchRange> ranges, std::vector<WorkerId> members = {{0}, {1}}) {
        const LeaseRequest request = world->of<LeaseRequest>().back().second;
        world->receive(node_of(kLeadShard),
                       LeaseReply{request.request, std::move(ranges), false, std::move(members)});
    }
    GradientWork gradient_work() const {
        const auto* work = std::get_if<GradientWork>(&world->works.back());
        REQUIRE(work != nullptr);
        return *work;
    }
    void end_work(GradientOutcome outcome) {
        world->give(ComputeEnded{{world->works.size()}, {std::move(outcome)}});
    }
    // Plays the computation of the combined gradient; returns what is pushed.
    Push combine() {
        const CombineWork work = std::get<CombineWork>(world->works.back());
        const Ticket ticket{world->works.size()};
        for (std::uint32_t i = 0; i < work.layout.size(); ++i) {
            std::size_t elements = 0;
            for (const BlockId id : work.layout[i]) elements += plan_->block(id).elements;
            world->give(ComputePart{ticket, i, floats(elements, 2)});
        }
        world->give(ComputeEnded{ticket, {CombineOutcome{}}});
        return world->of<Push>().back().second;
    }
    static GradientOutcome outcome(double loss_a, double loss_b) {
        GradientOutcome made;
        made.losses = {loss_a, loss_b};
        made.gramian = Gramian(2);
        made.groups = {GroupInput{Gramian(2), Gramian(2), {0, 0}}};
        made.exclusive_norms_sq = {0, 0};
        made.samples = 64;
        return made;
    }
    // The whole step that the worker has weights and a batch for.
    Push step(double loss_a, double loss_b) {
        end_work(outcome(loss_a, loss_b));
        const Push push = combine();
        PushReply reply;
        reply.step = push.step;
        reply.part = push.part;
        for (const GradientBlock& block : push.blocks) {
            BlockVerdict verdict;
            verdict.block = block.block;
            verdict.epoch = Epoch{1};
            verdict.version = Version{1};
            reply.verdicts.push_back(verdict);
        }
        world->receive(node_of(kLeadShard), reply);
        return push;
    }
    TaskSet asked_tasks() const {
        for (std::size_t i = world->sent.size(); i-- > 0;) {
            if (std::holds_alternative<LeaseRequest>(world->sent[i].second)) {
                return world->envelopes[i].tasks;
            }
        }
        return {};
    }
    Status status() {
        world->give(TimerFired{{}, {1, 0}});
        return world->of<Status>().back().second;
    }
    const Job& job() const { return *job_; }
    const Plan& plan() const { return *plan_; }

    std::unique_ptr<RecordedEffects> world;

  private:
    std::shared_ptr<Job> job_;
    std::shared_ptr<Plan> plan_;
    std::unique_ptr<Worker> worker_;
};

std::vector<BlockId> blocks_of(const Push& push) {
    std::vector<BlockId> blocks;
    for (const GradientBlock& block : push.blocks) blocks.push_back(block.block);
    return blocks;
}

}  // namespace

TEST_CASE("split worker: asks for its own tasks, as placed on the members it is told of") {
    for (std::uint32_t id = 0; id < 2; ++id) {
        LoneWorker worker(id);
        const auto placed = place_tasks({"a", "b"}, TaskSet{3}, all_workers(2));
        CHECK(worker.asked_tasks() == placed.at(WorkerId{id}));
        CHECK(worker.asked_tasks().count() == 1);
        worker.give_weights();
        worker.grant({{0, 0, 2, worker.asked_tasks()}}, {WorkerId{id}});  // the other is gone
        CHECK(worker.asked_tasks() == TaskSet{3});
    }
}

TEST_CASE("split worker: a step computes, pushes and names one task") {
    LoneWorker worker;
    worker.give_weights(7);
    worker.grant({{0, 4, 3, kB}});
    const GradientWork work = worker.gradient_work();
    CHECK(work.tasks == kB);
    CHECK(work.batch == BatchRange{0, 4, 1, kB});
    CHECK(work.weights.size() == 3);
    const Push push = worker.step(0, 1.5);
    CHECK(blocks_of(push) == std::vector<BlockId>{kTrunk, kHeadB});
    CHECK(push.batch == BatchRange{0, 4, 1, kB});
    for (const GradientBlock& block : push.blocks) {
        CHECK(block.tasks == kB);
        CHECK(block.base == Version{7});
    }
    // What the task does not own is closed, and weights come with a pull of their own.
    const auto notes = worker.world->of<CancelNote>();
    REQUIRE(notes.size() == 1);
    CHECK(notes[0].second.step == push.step);
    CHECK(notes[0].second.reason == CancelReason::recompute);
    CHECK(push.opens == Step{0});
    CHECK(worker.world->of<PullRequest>().back().second.step == next(push.step));
}

TEST_CASE("split worker: finished batches are told task by task") {
    LoneWorker worker;
    worker.give_weights();
    worker.grant({{0, 4, 2, kA}, {0, 4, 2, kB}});
    std::vector<TaskSet> order;
    for (int i = 0; i < 4; ++i) {
        order.push_back(worker.gradient_work().tasks);
        worker.step(1, 1);
        worker.give_weights();
    }
    CHECK(order == std::vector<TaskSet>{kA, kB, kA, kB});  // by turns
    std::vector<BatchRange> told;
    worker.grant({});
    for (const auto& [to, request] : worker.world->of<LeaseRequest>()) {
        told.insert(told.end(), request.finished.begin(), request.finished.end());
    }
    std::sort(told.begin(), told.end());
    told.erase(std::unique(told.begin(), told.end()), told.end());
    std::uint32_t batches = 0;
    for (const BatchRange& range : told) {
        CHECK(range.tasks.count() == 1);
        batches = std::max(batches, range.count);
    }
    CHECK(batches >= 1);
    CHECK(told.size() >= 2);
}

TEST_CASE("split worker: losses are of tasks it has computed and no zeros of the others") {
    LoneWorker worker;
    CHECK(std::isnan(worker.status().losses.at(0)));
    worker.give_weights();
    worker.grant({{0, 0, 2, kB}});
    worker.step(0, 3.0);
    const Status status = worker.status();
    CHECK(std::isnan(status.losses.at(0)));
    CHECK(status.losses.at(1) == 3.0);
    for (const NamedValue& value : status.values) {
        if (value.name == "cosine.count") CHECK(value.value == 0);
    }
}

TEST_CASE("split worker: the loss of a task that moved away is forgotten") {
    LoneWorker worker;
    const std::vector<WorkerId> both{{0}, {1}};
    const TaskSet own = worker.asked_tasks();
    const std::size_t kept = own == kA ? 0 : 1;
    worker.give_weights();
    // Alone it computes both tasks; then the other is back.
    worker.grant({{0, 0, 1, kA}, {0, 0, 1, kB}}, {WorkerId{0}});
    worker.step(3, 4);
    worker.give_weights();
    worker.step(3, 4);
    CHECK(worker.status().losses == std::vector<double>{3, 4});
    worker.give_weights();
    worker.grant({}, both);  // not told yet that both batches are finished
    CHECK(worker.status().losses == std::vector<double>{3, 4});
    worker.grant({{0, 1, 1, own}}, both);
    const std::vector<double> losses = worker.status().losses;
    CHECK(losses.at(kept) == (kept == 0 ? 3 : 4));
    CHECK(std::isnan(losses.at(1 - kept)));
    // Should it come back, its loss begins anew.
    worker.step(7, 7);
    worker.give_weights();
    worker.grant({{0, 1, 1, own == kA ? kB : kA}}, both);
    worker.step(7, 7);
    CHECK(worker.status().losses.at(1 - kept) == 7);
}

TEST_CASE(
    "split tasks: batches leased for no task or two or one that is not there end the worker") {
    for (const std::uint64_t bits : {0ULL, 3ULL, 4ULL, 1ULL << 63U}) {
        INFO(bits);
        LoneWorker worker;
        worker.grant({{0, 0, 4, TaskSet{bits}}});
        REQUIRE(worker.world->finished.has_value());
        CHECK(worker.world->finished->failed);
        CHECK_THAT(worker.world->of<Stopped>().back().second.error,
                   Catch::Contains("expected one task that is trained"));
    }
}

TEST_CASE("worker: a ledger that could not be written ends it") {
    LoneWorker worker;
    worker.world->give(Stored{{0}, fail(ErrorCode::io, "disk full")});
    REQUIRE(worker.world->finished.has_value());
    CHECK(worker.world->finished->failed);
    CHECK(worker.world->of<Stopped>().back().second.error == "disk full");
}

}  // namespace detente::test
