// One task's average is underway while the next task's backward computes: a worker on the threads
// that a real one has, and another member of its node.
#include <poll.h>

#include <catch2/catch.hpp>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "common/runtime/zmq/compute_thread.h"
#include "tests/recorded_effects.h"
#include "worker/collectives/collective_thread.h"
#include "worker/collectives/local.h"
#include "worker/engine_computer.h"
#include "worker/worker.h"

namespace detente::test {
namespace {

constexpr Nanos kPlenty = std::chrono::seconds(60);
constexpr std::size_t kElements = 4;

// Opened by one thread, waited for by another.
class Gate {
  public:
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }
    // Whether it was opened within ten seconds.
    bool passed() {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10), [this] { return open_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
};

class Ones final : public TaskGradients {
  public:
    const float* gradient(TaskId /*task*/, std::size_t /*tensor*/) const override { return row_; }

  private:
    float row_[kElements] = {1, 1, 1, 1};
};

// Two tasks share a tensor. The backward of the second ends only when the average of the first is
// there, or never would be.
class WaitingModel final : public Engine {
  public:
    WaitingModel(Gate& averaged, std::atomic<bool>& overlapped)
        : averaged_(averaged), overlapped_(overlapped) {
        description_.model = "waiting";
        description_.tasks = {"a", "b"};
        description_.training_samples = 64;
        TensorDescription tensor;
        tensor.name = "w";
        tensor.shape = {kElements};
        tensor.owners = TaskSet{3};
        description_.tensors = {tensor};
    }
    const ModelDescription& description() const override { return description_; }
    std::span<const float> tensor(std::size_t /*index*/) const override { return weights_; }
    void load(std::size_t /*index*/, std::size_t offset,
              std::span<const std::byte> values) override {
        std::memcpy(weights_.data() + offset, values.data(), values.size());
    }
    Result<GradientReport> gradients(const GradientRequest& request) override {
        const auto rows = std::make_shared<Ones>();
        if (request.task_done) request.task_done(TaskId{0}, *rows);
        overlapped_ = averaged_.passed();  // here the second task's backward would run
        return GradientReport{{1, 1}, rows};
    }
    Result<std::vector<TaskScore>> evaluate() override { return std::vector<TaskScore>(); }
    bool draws_from_shared_generator() const override { return false; }

  private:
    Gate& averaged_;
    std::atomic<bool>& overlapped_;
    ModelDescription description_;
    std::vector<float> weights_ = std::vector<float>(kElements);
};

std::shared_ptr<const Job> job_in_step() {
    auto job = std::make_shared<Job>();
    job->workers = 2;
    job->sync_layers = {"*"};
    return job;
}

// A worker's loop with its compute and collective threads; the test is its shard, its coordinator
// and, by a collective thread of its own, the other member of its node.
class ThreadedWorker {
  public:
    ThreadedWorker() {
        auto engine = std::make_unique<WaitingModel>(averaged_, overlapped);
        const std::shared_ptr<const Job> job = job_in_step();
        auto made = make_plan(engine->description(), *job);
        REQUIRE(made.has_value());
        const auto plan = std::make_shared<const Plan>(std::move(*made));
        WorkerSetup setup;
        setup.id = WorkerId{0};
        setup.job = job;
        setup.plan = plan;
        setup.tasks = engine->description().tasks;
        setup.training_samples = engine->description().training_samples;
        auto worker = Worker::create(std::move(setup));
        REQUIRE(worker.has_value());
        worker_ = std::move(*worker);
        world_ = std::make_unique<RecordedEffects>(*worker_);
        computer_ = std::make_unique<EngineComputer>(std::move(engine), plan, job->seed, false);
        compute_ = std::make_unique<ComputeThread>(*computer_, inbox_);
        collective_ = std::make_unique<CollectiveThread>(own_backend_, WorkerId{0}, sink());
        other_ = std::make_unique<CollectiveThread>(
            other_backend_, WorkerId{1},
            CollectiveSink{[](GroupEpoch, Result<void>) {}, [](CollectiveEnd) {},
                           [](GroupEpoch, Broken) {}});
    }
    ~ThreadedWorker() {
        averaged_.open();
        compute_->stop();
        collective_->stop();
        other_->stop();
    }
    ThreadedWorker(const ThreadedWorker&) = delete;
    ThreadedWorker& operator=(const ThreadedWorker&) = delete;

    // Trains until the first gradient is computed; false: it was not within a minute.
    bool computes_a_gradient() {
        world_->give(Started{});
        world_->receive(kCoordinator, Welcome{});
        world_->receive(kCoordinator, FormGroup{{GroupEpoch{1}, {WorkerId{0}, WorkerId{1}}}});
        world_->receive(kCoordinator, Go{});
        carry_out();
        const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (!computed_ && std::chrono::steady_clock::now() < until) take_events();
        return computed_;
    }

    std::atomic<bool> overlapped{false};

  private:
    CollectiveSink sink() {
        return {[this](GroupEpoch epoch, Result<void> result) {
                    inbox_.deliver(GroupFormed{epoch, std::move(result)}, nullptr);
                },
                [this](CollectiveEnd end) { inbox_.deliver(Reduced{std::move(end)}, nullptr); },
                [this](GroupEpoch epoch, Broken broken) {
                    inbox_.deliver(GroupBroken{epoch, std::move(broken)}, nullptr);
                }};
    }

    void take_events() {
        wakeup_.prepare();
        pollfd wait{wakeup_.descriptor(), POLLIN, 0};
        if (inbox_.empty()) ::poll(&wait, 1, 100);
        wakeup_.done((wait.revents & POLLIN) != 0);
        Posted* oldest = inbox_.take();
        while (oldest != nullptr) {
            const std::unique_ptr<Posted> posted(std::exchange(oldest, oldest->next));
            posted->kept.reset();
            if (const auto* ended = std::get_if<ComputeEnded>(&posted->event)) {
                compute_->ended(ended->ticket);
                computed_ = true;
            }
            const auto* reduced = std::get_if<Reduced>(&posted->event);
            const bool of_first_task = reduced != nullptr && reduced->end.key.bucket == Bucket{1} &&
                                       std::holds_alternative<Averaged>(reduced->end.result);
            world_->give(std::move(posted->event));
            if (of_first_task) averaged_.open();
            carry_out();
        }
    }

    // What the worker asked for since.
    void carry_out() {
        for (; answered_ < world_->sent.size(); ++answered_) {
            const Body body = world_->sent[answered_].second;
            answer(body);
        }
        for (; works_ < world_->works.size(); ++works_) {
            compute_->submit({works_ + 1}, std::move(world_->works[works_]));
        }
        for (; formed_ < world_->formed.size(); ++formed_) {
            collective_->form(world_->formed[formed_], kPlenty);
            other_->form(world_->formed[formed_], kPlenty);
        }
        for (; reduced_ < world_->reduced.size(); ++reduced_) {
            auto& [key, share] = world_->reduced[reduced_];
            other_->begin(key, of_the_other(key, share.elements), kPlenty);
            collective_->begin(key, std::move(share), kPlenty);
        }
    }

    // It takes no part: its notes are zeros, and its gradients count for nothing.
    static GradientShare of_the_other(const CollectiveKey& key, std::uint64_t elements) {
        if (key.bucket != Bucket{0}) return cancelled_share(elements);
        const std::vector<float> zeros(elements, 0.0F);
        return {elements, 1, copy_of(std::as_bytes(std::span(zeros)))};
    }

    // As the one shard does; of batches there is one.
    void answer(const Body& body) {
        if (const auto* pull = std::get_if<PullRequest>(&body)) {
            PullReply reply;
            reply.step = pull->step;
            reply.request = pull->request;
            reply.credit_bytes = 1U << 20U;
            const std::vector<float> weights(kElements, 0.5F);
            for (const BlockId block : pull->blocks) {
                reply.blocks.push_back({block, Epoch{1}, Version{0},
                                        copy_of(std::as_bytes(std::span(weights))), std::nullopt});
            }
            world_->receive(node_of(kLeadShard), std::move(reply));
        }
        const auto* lease = std::get_if<LeaseRequest>(&body);
        if (lease == nullptr || std::exchange(leased_, true)) return;
        LeaseReply reply;
        reply.request = lease->request;
        reply.granted = {{0, 0, 1}};
        world_->receive(node_of(kLeadShard), std::move(reply));
    }

    Gate averaged_;
    Wakeup wakeup_;
    Inbox inbox_{wakeup_};
    std::shared_ptr<LocalHub> hub_ = std::make_shared<LocalHub>();
    LocalBackend own_backend_{hub_};
    LocalBackend other_backend_{hub_};
    std::unique_ptr<Worker> worker_;
    std::unique_ptr<RecordedEffects> world_;
    std::unique_ptr<EngineComputer> computer_;
    std::unique_ptr<ComputeThread> compute_;
    std::unique_ptr<CollectiveThread> collective_;
    std::unique_ptr<CollectiveThread> other_;
    std::size_t works_ = 0;
    std::size_t formed_ = 0;
    std::size_t reduced_ = 0;
    std::size_t answered_ = 0;
    bool leased_ = false;
    bool computed_ = false;
};

TEST_CASE("in step: the first task's average is there before the last task's backward has ended") {
    ThreadedWorker worker;
    REQUIRE(worker.computes_a_gradient());
    CHECK(worker.overlapped);
}

}  // namespace
}  // namespace detente::test
