// A whole cluster on virtual time for tests: real shards and workers, a scripted coordinator.
#pragma once

#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <set>

#include "common/runtime/sim/world.h"
#include "ps/shard.h"
#include "tests/sim/quadratic_engine.h"
#include "worker/engine_computer.h"
#include "worker/worker.h"

namespace detente::test {

struct ClusterOptions {
    Job job;
    QuadraticOptions model;
    sim::WorldOptions world;
    std::map<std::uint32_t, QuadraticOptions> model_of_worker;  // where it has one of its own
    // A run that goes on from a checkpoint: fills in a shard's setup; its workers' incarnation.
    std::function<void(ShardSetup&, const ModelDescription&)> restore;
    Incarnation incarnation{1};
};

// Three workers, two servers, plain SGD without a bound.
inline ClusterOptions small_cluster(std::uint64_t seed = 1) {
    ClusterOptions options;
    options.job.servers = 2;
    options.job.workers = 3;
    options.job.batch_samples = 16;
    options.job.data_epochs = 2;
    options.job.lease_batches = 4;
    options.job.rule.name = "sgd";
    options.job.rule.learning_rate = 0.05;
    options.job.policy.name = "async";
    options.job.policy.parameters = {};
    options.job.seed = seed;
    options.world.seed = seed;
    return options;
}

inline std::uint64_t batches_of(const ClusterOptions& options) {
    const std::uint64_t per_epoch =
        (options.model.samples + options.job.batch_samples - 1) / options.job.batch_samples;
    return per_epoch * options.job.data_epochs;
}

// Welcomes everybody, says Go when all are ready, stops the shards when all workers have left.
class ScriptedCoordinator : public Node {
  public:
    ScriptedCoordinator(std::vector<NodeId> shards, std::vector<NodeId> workers, bool one_node)
        : shards_(std::move(shards)), workers_(std::move(workers)), one_node_(one_node) {}

    void on(Event&& event, Time /*now*/, Effects& effects) override {
        if (std::holds_alternative<Started>(event)) {
            for (const NodeId shard : shards_) send(effects, shard, Welcome{});
            for (const NodeId worker : workers_) {
                Welcome welcome;
                welcome.initialise = worker == workers_.front();
                send(effects, worker, std::move(welcome));
            }
        }
        auto* received = std::get_if<Received>(&event);
        if (received == nullptr) {
            if (const auto* down = std::get_if<PeerDown>(&event)) gone(down->node, effects);
            return;
        }
        const NodeId from = received->message.envelope.from;
        Body& body = received->message.body;
        if (std::holds_alternative<Ready>(body)) {
            ready.insert(from);
            if (ready.size() == shards_.size() + workers_.size()) {
                if (one_node_) form_group(effects);
                for (const NodeId worker : workers_) send(effects, worker, Go{});
            }
        } else if (auto* stopped = std::get_if<Stopped>(&body)) {
            last[from] = std::move(*stopped);
            gone(from, effects);
        } else if (auto* stop = std::get_if<Stop>(&body)) {
            for (const NodeId worker : workers_) send(effects, worker, *stop);
        } else if (auto* request = std::get_if<CheckpointRequest>(&body)) {
            for (const NodeId shard : shards_) send(effects, shard, *request);
        } else if (auto* written = std::get_if<CheckpointReply>(&body)) {
            checkpoints[from] = *written;
        } else if (auto* answer = std::get_if<PolicyChanged>(&body)) {
            changed.push_back(*answer);
        }
    }

    std::set<NodeId> ready;
    std::map<NodeId, Stopped> last;
    std::map<NodeId, CheckpointReply> checkpoints;
    std::vector<PolicyChanged> changed;

  private:
    // All workers that are left.
    void form_group(Effects& effects) {
        epoch_ = next(epoch_);
        Group group{epoch_, {}};
        for (const NodeId worker : workers_) {
            if (!gone_.contains(worker)) group.members.push_back(WorkerId{worker.index});
        }
        for (const WorkerId member : group.members) {
            send(effects, node_of(member), FormGroup{group});
        }
    }
    void gone(NodeId node, Effects& effects) {
        gone_.insert(node);
        if (one_node_ && node.role == Role::worker) form_group(effects);
        for (const NodeId worker : workers_) {
            if (!gone_.contains(worker)) return;
        }
        if (stopping_) return;
        stopping_ = true;
        for (const NodeId shard : shards_)
            send(effects, shard, Stop{"all workers have left", true});
    }
    static void send(Effects& effects, NodeId to, Body body) {
        Message message;
        message.body = std::move(body);
        effects.send(to, std::move(message));
    }
    std::vector<NodeId> shards_;
    std::vector<NodeId> workers_;
    bool one_node_;  // all workers are in step
    std::set<NodeId> gone_;
    bool stopping_ = false;
    GroupEpoch epoch_{0};
};

class Cluster {
  public:
    explicit Cluster(const ClusterOptions& options)
        : job_(std::make_shared<Job>(options.job)), world_(with_default_times(options.world)) {
        const QuadraticEngine probe(options.model);
        model_ = probe.description();
        auto plan = make_plan(model_, *job_);
        REQUIRE(plan.has_value());
        plan_ = std::make_shared<Plan>(std::move(*plan));
        placement_ = std::make_shared<TaskPlacement>(model_.tasks, trained_tasks(*plan_));
        std::vector<NodeId> shards;
        std::vector<NodeId> workers;
        for (std::uint32_t i = 0; i < job_->shards(); ++i) {
            shards.push_back(node_of(ShardId{i}));
            ShardSetup setup;
            setup.id = ShardId{i};
            setup.job = job_;
            setup.plan = plan_;
            setup.training_samples = model_.training_samples;
            if (options.restore) options.restore(setup, model_);
            auto shard = Shard::create(std::move(setup));
            REQUIRE(shard.has_value());
            world_.add(shards.back(), Incarnation{1}, std::move(*shard));
        }
        for (std::uint32_t i = 0; i < job_->workers; ++i) {
            workers.push_back(node_of(WorkerId{i}));
            const auto own = options.model_of_worker.find(i);
            add_worker(WorkerId{i}, options.incarnation,
                       own == options.model_of_worker.end() ? options.model : own->second);
        }
        auto coordinator =
            std::make_unique<ScriptedCoordinator>(shards, workers, !job_->sync_layers.empty());
        coordinator_ = coordinator.get();
        world_.add(kCoordinator, Incarnation{1}, std::move(coordinator));
    }

    void add_worker(WorkerId id, Incarnation incarnation, const QuadraticOptions& model) {
        WorkerSetup setup;
        setup.id = id;
        setup.job = job_;
        setup.plan = plan_;
        setup.tasks = model_.tasks;
        setup.placement = placement_;
        auto worker = Worker::create(std::move(setup));
        REQUIRE(worker.has_value());
        computers_.push_back(std::make_unique<EngineComputer>(
            std::make_unique<QuadraticEngine>(model), plan_, job_->seed, job_->gradient_hashes));
        REQUIRE(computers_.back()->use_methods_of(*job_).has_value());
        world_.add(node_of(id), incarnation, std::move(*worker), computers_.back().get());
    }

    const ModelDescription& model() const { return model_; }
    void send_to_coordinator(Body body) {
        Message message;
        message.body = std::move(body);
        world_.post(kCoordinator, Received{std::move(message)});
    }
    Shard& shard(std::uint32_t index) {
        return dynamic_cast<Shard&>(world_.node(node_of(ShardId{index})));
    }
    // Runs until every shard has stopped; the final books and weights are kept.
    bool run(Time limit = Time{std::chrono::hours(10)}) {
        const bool stopped = run_until([this] { return shards_stopped(); }, limit);
        // Their last words are still on the way.
        world_.run_until([] { return false; }, world_.now() + std::chrono::seconds(1));
        return stopped;
    }
    // Whether it came to that.
    bool run_until(const std::function<bool()>& done, Time limit = Time{std::chrono::hours(10)}) {
        world_.observe([this](NodeId id, Time when) {
            if (id.role == Role::shard) watch(id);
            if (watcher) watcher(id, when);
        });
        return world_.run_until(done, limit);
    }
    // Some time after everybody is ready, which takes seconds where first weights were lost.
    void after_start(Nanos delay, std::function<void()> action) {
        world_.at(world_.now() + delay, [this, action = std::move(action)]() mutable {
            if (coordinator_->ready.size() == job_->shards() + job_->workers) return action();
            after_start(std::chrono::milliseconds(3), std::move(action));
        });
    }
    bool shards_stopped() const {
        for (std::uint32_t i = 0; i < job_->shards(); ++i) {
            if (world_.alive(node_of(ShardId{i}))) return false;
        }
        return true;
    }
    Books books() const {
        Books sum;
        for (const auto& [id, books] : books_) sum.add(books);
        return sum;
    }
    const std::map<BlockId, std::vector<float>>& weights_by_block() const { return weights_; }
    // All weights, block after block.
    std::vector<float> weights() const {
        std::vector<float> all;
        for (const auto& [block, values] : weights_) {
            all.insert(all.end(), values.begin(), values.end());
        }
        return all;
    }

    sim::World& world() { return world_; }
    ScriptedCoordinator& coordinator() { return *coordinator_; }
    const Job& job() const { return *job_; }
    const Plan& plan() const { return *plan_; }
    std::shared_ptr<const Plan> shared_plan() const { return plan_; }
    const TaskPlacement& placement() const { return *placement_; }
    std::function<void(NodeId, Time)> watcher;
    std::uint64_t finished_batches = 0;
    std::uint64_t leased_batches = 0;
    std::map<BlockId, Version> versions;

  private:
    static sim::WorldOptions with_default_times(sim::WorldOptions options) {
        if (!options.compute_time) {
            const std::uint64_t seed = options.seed;
            options.compute_time = [seed](NodeId node, const Work& work, std::uint64_t count) {
                if (!std::holds_alternative<GradientWork>(work)) return Nanos{0};
                Random random(random_key(seed, Purpose::compute_time, {node.index, count}));
                return Nanos(static_cast<std::int64_t>(1e6 * (0.2 + random.exponential())));
            };
        }
        return options;
    }
    void watch(NodeId id) {
        Shard& shard = dynamic_cast<Shard&>(world_.node(id));
        books_[id] = shard.books();
        REQUIRE(shard.books().balance(to_string(id)).has_value());
        if (id.index == 0) {
            finished_batches = shard.leases().finished();
            leased_batches = shard.leases().leased();
        }
        if (shard.store().step_policy() != nullptr) stepped_.insert(id);
        if (!shard.store().initialised()) return;
        for (LiveBlock& block : shard.store().blocks()) {
            auto& values = weights_[block.plan->id];
            Version& version = versions[block.plan->id];
            if (!values.empty() && version == block.version) continue;
            // One event may bring several decisions of the lead that were waited for.
            const bool by_one = block.version.value == version.value + 1;
            const bool grows = stepped_.contains(id) && block.version > version;
            REQUIRE((values.empty() || by_one || grows));
            version = block.version;
            const float* first = block.weights->floats().data();
            values.assign(first, first + block.plan->elements);
        }
    }

    std::shared_ptr<Job> job_;
    ModelDescription model_;
    std::shared_ptr<const Plan> plan_;
    std::shared_ptr<TaskPlacement> placement_;
    std::vector<std::unique_ptr<EngineComputer>> computers_;
    sim::World world_;
    ScriptedCoordinator* coordinator_ = nullptr;
    std::map<NodeId, Books> books_;
    std::set<NodeId> stepped_;  // shards that have been in step scope
    std::map<BlockId, std::vector<float>> weights_;
};

}  // namespace detente::test
