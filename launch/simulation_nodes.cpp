// The nodes of a simulated run: made as their processes make them.
#include <utility>

#include "common/build_id.h"
#include "common/partition/layers.h"
#include "common/partition/task_placement.h"
#include "launch/job.h"
#include "launch/simulated_services.h"
#include "launch/simulation.h"
#include "launch/worker_vectors.h"
#include "ps/restore.h"

namespace detente {

Result<void> Simulation::add_nodes() {
    add_coordinator();
    for (std::uint32_t i = 0; i < job_->shards(); ++i) {
        if (auto added = add_shard(ShardId{i}); added.has_error()) return added;
    }
    for (std::uint32_t i = 0; i < job_->workers; ++i) {
        if (auto added = add_worker(WorkerId{i}); added.has_error()) return added;
    }
    return {};
}

// A server keeps its incarnation: it is the generation that tells it from the one before.
Incarnation Simulation::incarnation_of(NodeId id) const {
    const auto joined = joined_.find(id);
    if (joined != joined_.end()) return joined->second;
    return id.role == Role::worker ? point_.worker_incarnation : Incarnation{1};
}

void Simulation::add_coordinator() {
    const ModelDescription& model = setup_.engines->description();
    CoordinatorOptions options;
    options.job = *job_;
    options.job_text = to_toml(*job_);
    options.model_json = to_json(model);
    options.tasks = model.tasks;
    options.trained = trained_tasks(*plan_);
    options.metrics = model.metrics;
    options.training_samples = model.training_samples;
    options.checkpoint_dir = run_.checkpoint_dir();
    options.first_checkpoint = point_.first_checkpoint;
    options.resumed_from = point_.directory;
    options.samples_before = point_.samples_before;
    options.methods = point_.methods;
    options.workers_keep_vectors = keeps_vectors(*job_, model);
    options.host = "simulation";
    options.hosts_are_nodes = false;
    auto node = std::make_unique<Coordinator>(std::move(options));
    coordinator_ = node.get();
    world_->add(kCoordinator, Incarnation{1}, std::move(node));
    auto merge = [this, text = to_toml(*job_)](const CheckpointRequest& request) {
        CheckpointOrigin origin;
        origin.generation = generation_;
        origin.job_text = text;
        origin.workers = job_->workers;
        const bool over = coordinator_ == nullptr;  // then nobody waits for the answer
        if (!over) origin.worker_files = coordinator_->worker_files();
        return merge_slices(request, *plan_, setup_.engines->description(), std::move(origin));
    };
    world_->add(kMerger, Incarnation{1}, std::make_unique<SimulatedMerger>(std::move(merge)));
    world_->add(kEvaluator, Incarnation{1},
                std::make_unique<SimulatedEvaluator>(setup_.engines->engine()));
}

// As the control link of its process would.
void Simulation::post_hello(NodeId id) {
    Hello hello;
    hello.endpoint.node = id;
    hello.endpoint.host = to_string(id);
    hello.endpoint.incarnation = incarnation_of(id);
    hello.has_weights = id.role == Role::shard && !point_.directory.empty();
    hello.build = build_description();
    Message message;
    message.envelope.from = id;
    message.envelope.to = kCoordinator;
    message.envelope.generation = generation_;
    message.envelope.incarnation = hello.endpoint.incarnation;
    message.body = std::move(hello);
    world_->post(kCoordinator, Received{std::move(message)});
}

Result<void> Simulation::add_shard(ShardId id) {
    ShardSetup setup;
    setup.id = id;
    setup.job = job_;
    setup.plan = plan_;
    setup.training_samples = setup_.engines->description().training_samples;
    if (!point_.directory.empty()) {
        const auto gaps = restore_shard(setup, point_.directory, setup_.engines->description());
        if (gaps.has_error()) return gaps.error();
        for (const std::string& gap : *gaps) {
            write_log(node_of(id), world_->now(), LogLevel::warning, gap);
        }
    }
    auto shard = Shard::create(std::move(setup));
    if (shard.has_error()) return shard.error();
    world_->add(node_of(id), Incarnation{1}, std::move(*shard));
    post_hello(node_of(id));
    return {};
}

// One that joins begins without the vectors of the run before, as its process would.
Result<void> Simulation::add_worker(WorkerId id, bool joins) {
    WorkerSetup setup;
    setup.id = id;
    setup.job = job_;
    setup.plan = plan_;
    setup.tasks = setup_.engines->description().tasks;
    setup.layers = shared_layers(*plan_, setup_.engines->description()).names;
    setup.training_samples = setup_.engines->description().training_samples;
    if (keeps_vectors(*job_, setup_.engines->description())) {
        setup.checkpoint_dir = run_.checkpoint_dir();
        forget_last_word(id, setup.checkpoint_dir);
    }
    setup.placement = placement_;
    const bool restores = !joins && !setup.checkpoint_dir.empty() && !point_.directory.empty();
    auto worker = Worker::create(std::move(setup));
    if (worker.has_error()) return worker.error();
    computers_.push_back(std::make_unique<EngineComputer>(setup_.engines->engine(), plan_, orders_,
                                                          job_->gradient_hashes));
    if (auto used = computers_.back()->use_methods_of(*job_); used.has_error()) return used;
    if (restores) {
        const auto unused = restore_vectors(*computers_.back(), id, point_.directory);
        if (unused.has_error()) return unused.error();
        if (!unused->empty()) {
            write_log(node_of(id), world_->now(), LogLevel::warning, *unused);
        }
    }
    world_->add(node_of(id), incarnation_of(node_of(id)), std::move(*worker),
                computers_.back().get());
    post_hello(node_of(id));
    return {};
}

}  // namespace detente
