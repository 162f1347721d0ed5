#include "launch/simulation.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "common/build_id.h"
#include "common/checksum.h"
#include "common/random.h"
#include "common/staleness/policy.h"
#include "launch/job.h"
#include "launch/machine.h"
#include "launch/simulation_faults.h"

namespace detente {
namespace {

bool is_worker(const std::string& node) { return node.starts_with("worker:"); }

sim::NetworkOptions network_of(const SimulatedNetworkConfig& config) {
    sim::NetworkOptions network;
    network.latency = config.latency;
    network.jitter = config.jitter;
    network.bandwidth_bytes_per_s = static_cast<double>(config.bandwidth_bytes_per_s);
    network.drop = config.drop;
    network.duplicate = config.duplicate;
    network.corrupt = config.corrupt;
    return network;
}

}  // namespace

Simulation::~Simulation() = default;

Result<std::unique_ptr<Simulation>> Simulation::create(SimulationSetup setup) {
    std::unique_ptr<Simulation> made(new Simulation(std::move(setup)));
    if (auto done = made->make_world(); done.has_error()) return done.error();
    return made;
}

Result<void> Simulation::make_world() {
    job_ = std::make_shared<const Job>(setup_.job);
    plan_ = std::make_shared<const Plan>(setup_.plan);
    orders_ =
        std::make_shared<SampleOrders>(job_->seed, setup_.engines->description().training_samples);
    placement_ =
        std::make_shared<TaskPlacement>(setup_.engines->description().tasks, trained_tasks(*plan_));
    run_ = setup_.run;
    const SimulationConfig& simulate = job_->simulate;
    auto times = sim::ComputeTimes::create(simulate.compute, job_->seed);
    if (times.has_error()) return times.error();
    times_ = std::move(*times);
    impose_staleness();
    // At which weights is known only when a gradient is done.
    const bool parallel = setup_.threads > 1 && !staleness_;
    if (parallel) pool_ = std::make_unique<sim::ComputePool>(setup_.threads);
    if (simulate.thorough) {
        auto protocol = ProtocolInvariants::create(*job_, plan_);
        if (protocol.has_error()) return protocol.error();
        protocol_ = std::move(*protocol);
    }
    keeps_late_ =
        std::any_of(simulate.faults.begin(), simulate.faults.end(), [](const FaultConfig& fault) {
            return fault.kind == FaultKind::restart && !is_worker(fault.node);
        });
    if (!setup_.resume.empty()) {
        auto point = resume_point(setup_.resume, *plan_, setup_.engines->description());
        if (point.has_error()) return point.error();
        point_ = std::move(*point);
        generation_ = next(point_.generation);
        if (protocol_) protocol_->resumed(std::nullopt);
    }
    world_ = std::make_unique<sim::World>(world_options());
    world_->observe([this](NodeId id, Time) { after_event(id); });
    if (auto added = add_nodes(); added.has_error()) return added;
    for (std::size_t i = 0; i < simulate.faults.size(); ++i) schedule(simulate.faults[i], i);
    for (std::size_t i = 0; i < simulate.changes.size(); ++i) {
        world_->at(Time{simulate.changes[i].at}, [this, i] { change_policy(i); });
    }
    return {};
}

void Simulation::impose_staleness() {
    const ImposedStalenessConfig& config = job_->simulate.staleness;
    if (config.distribution == "none") return;
    staleness_.emplace(config, job_->seed, plan_, !decides_steps(*job_));
}

sim::WorldOptions Simulation::world_options() {
    const SimulationConfig& simulate = job_->simulate;
    sim::WorldOptions options;
    options.seed = job_->seed;
    options.network = network_of(simulate.network);
    options.groups = {simulate.collective.latency,
                      static_cast<double>(simulate.collective.bandwidth_bytes_per_s)};
    options.generation = generation_;
    options.build = build_id();
    options.pool = pool_.get();
    options.cancel_time = simulate.compute.cancel;
    // Only the gradient takes time: what follows it (Gramian, combination) is counted in.
    options.compute_time = [this](NodeId node, const Work& work, std::uint64_t count) {
        if (!std::holds_alternative<GradientWork>(work)) return Nanos{0};
        return times_->next(node.index, count);
    };
    if (simulate.shard.message.count() > 0 || simulate.shard.bytes_per_s > 0) {
        options.service_time = [this](NodeId node, const Message& message) {
            return shard_time(node, message);
        };
    }
    options.store = [this](StoreOp& operation) { return store(operation); };
    options.record = [this](NodeId id, Incarnation incarnation, const LedgerEntry& entry) {
        record(id, incarnation, entry);
    };
    options.log = [this](NodeId id, Time now, LogLevel level, const std::string& text) {
        write_log(id, now, level, text);
    };
    if (setup_.trace != nullptr || protocol_) {
        options.trace = [this](NodeId id, Time now, const Event& event) { handed(id, now, event); };
    }
    options.ending = [this](NodeId id, Node& node) { ending(id, node); };
    if (staleness_ || protocol_ || keeps_late_) {
        options.alter = [this](NodeId to, Message& message) { sent(to, message); };
    }
    if (staleness_) {
        options.about_to_run = [this](NodeId node, Work& work) {
            if (auto* gradient = std::get_if<GradientWork>(&work)) {
                staleness_->choose(node, *gradient);
            }
        };
    }
    return options;
}

// Of a worker's push or pull; what is said to the coordinator and between shards takes no time.
Nanos Simulation::shard_time(NodeId node, const Message& message) const {
    if (node.role != Role::shard || message.envelope.from.role != Role::worker) return Nanos{0};
    const SimulatedShardConfig& shard = job_->simulate.shard;
    std::uint64_t bytes = payload_bytes(message.body);
    if (const auto* pull = std::get_if<PullRequest>(&message.body)) {
        for (const BlockId id : pull->blocks) {
            if (id.value < plan_->blocks.size()) bytes += plan_->block(id).bytes();
        }
    }
    Nanos time = shard.message;
    if (shard.bytes_per_s > 0) {
        const double taken = static_cast<double>(bytes) / static_cast<double>(shard.bytes_per_s);
        time += Nanos{static_cast<std::int64_t>(taken * 1e9)};
    }
    return time;
}

// ---- faults ----

void Simulation::schedule(const FaultConfig& fault, std::size_t number) {
    const std::vector<NodeId> nodes = *nodes_named(fault.node, *job_);
    const Time begins{fault.at};
    if (fault.kind == FaultKind::partition || fault.kind == FaultKind::clog) {
        sim::Disturbance disturbance;
        disturbance.from = nodes;
        if (!fault.peer.empty()) disturbance.to = *nodes_named(fault.peer, *job_);
        disturbance.both_ways = fault.both_ways;
        disturbance.begins = begins;
        disturbance.ends = begins + fault.lasts;
        disturbance.cut = fault.kind == FaultKind::partition;
        disturbance.delay = fault.delay;
        world_->disturb(std::move(disturbance));
        return;
    }
    world_->at(begins, [this, fault, nodes, number] {
        const std::string reason = fmt::format("crashed at {:.3f} s, as simulate.fault.{} says",
                                               as_seconds(fault.at), number);
        if (fault.kind == FaultKind::restart) return restart(nodes, fault, reason);
        if (fault.kind > FaultKind::restart) return spoiled_.push_back(fault);
        for (const NodeId id : nodes) {
            if (fault.kind == FaultKind::pause) world_->pause(id, fault.lasts);
            if (fault.kind == FaultKind::nan) world_->spoil_gradient(id);
            if (fault.kind == FaultKind::crash) crash(id, reason);
            if (fault.kind == FaultKind::drain) {
                drain(id, fmt::format("simulate.fault.{}", number));
            }
            if (fault.kind == FaultKind::join) join(id, generation_);
        }
    });
}

// The coordinator hears of it as of a control connection that closed.
void Simulation::crash(NodeId id, const std::string& reason) {
    if (!world_->alive(id)) return;
    world_->crash(id);
    const PeerDown down{id, incarnation_of(id), reason};
    world_->at(world_->now() + job_->simulate.network.latency,
               [this, down, generation = generation_] {
                   if (generation == generation_) world_->post(kCoordinator, down);
               });
}

// As `detente control --set` has the coordinator told.
void Simulation::change_policy(std::size_t number) {
    const SimulatedChangeConfig& wanted = job_->simulate.changes[number];
    const std::string by = fmt::format("simulate.change.{}", number);
    if (coordinator_ == nullptr || coordinator_->view().stage != Stage::training) {
        return write_log(kCoordinator, world_->now(), LogLevel::warning,
                         by + ": nothing is changed, for training does not run at that time");
    }
    PolicyChange change;
    change.request = number + 1;
    change.policy = wanted.policy;
    change.parameters = wanted.parameters;
    change.admission = wanted.admission;
    change.by = by;
    Message message;
    message.envelope.from = kCoordinator;
    message.body = std::move(change);
    world_->post(kCoordinator, Received{std::move(message)});
}

// As `detente control --drain` has the coordinator told.
void Simulation::drain(NodeId id, const std::string& reason) {
    Message message;
    message.envelope.from = kCoordinator;
    PeerChange leaving;
    leaving.node = id;
    leaving.reason = reason;
    message.body = std::move(leaving);
    world_->post(kCoordinator, Received{std::move(message)});
}

void Simulation::join(NodeId id, Generation generation) {
    const bool over = coordinator_ == nullptr || generation != generation_ ||
                      coordinator_->view().stage > Stage::training;
    if (over) return;
    for (const Endpoint& place : coordinator_->vacancies()) {
        if (place.node != id || world_->alive(id)) continue;  // alive: has not heard yet
        joined_[id] = place.incarnation;
        auto added = add_worker(WorkerId{id.index}, true);
        if (added.has_error() && !broken_) broken_ = added.error();
        return;
    }
    world_->at(world_->now() + job_->heartbeat_interval,
               [this, id, generation] { join(id, generation); });
}

// ---- what leaves the world ----

// Not flushed to the disk: what a simulation leaves behind need not outlive a loss of power.
Result<void> Simulation::store(StoreOp& operation) {
    std::error_code failed;
    std::filesystem::create_directories(std::filesystem::path(operation.path).parent_path(),
                                        failed);
    std::ofstream file(operation.path, std::ios::binary | std::ios::trunc);
    for (const Payload& piece : operation.pieces) {
        file.write(reinterpret_cast<const char*>(piece.bytes.data()),
                   static_cast<std::streamsize>(piece.size()));
    }
    file.close();
    if (file) return {};
    return fail(ErrorCode::io, fmt::format("cannot write {}; choose another --out, or free some "
                                           "space",
                                           operation.path));
}

void Simulation::sent(NodeId to, Message& message) {
    if (staleness_) staleness_->sent(to, message);
    if (protocol_) protocol_->sent(message);
    if (keeps_late_) late_.note(message);
}

void Simulation::handed(NodeId id, Time now, const Event& event) {
    if (setup_.trace != nullptr) setup_.trace->note(id, now, event);
    if (protocol_) protocol_->handed(id, event, generation_);
}

void Simulation::record(NodeId id, Incarnation incarnation, const LedgerEntry& entry) {
    if (protocol_) protocol_->recorded(id, entry);
    std::unique_ptr<LedgerWriter>& writer = ledgers_[{id, incarnation}];
    if (writer == nullptr) {
        LedgerOrigin origin;
        origin.node = id;
        origin.incarnation = incarnation;
        origin.generation = generation_;
        origin.job = job_->name;
        origin.build = build_description();
        const ModelDescription& model = setup_.engines->description();
        origin.machine = machine_description(
            job_->threads, id.role == Role::worker ? model.versions : std::string());
        auto made = LedgerWriter::create(
            run_.ledger_dir() + "/" + ledger_file_name(id, incarnation), origin);
        if (made.has_error()) {
            if (!broken_) broken_ = made.error();
            return;
        }
        writer = std::move(*made);
    }
    if (auto written = writer->append(entry); written.has_error() && !broken_) {
        broken_ = written.error();
    }
}

void Simulation::write_log(NodeId id, Time now, LogLevel level, const std::string& text) {
    const std::string label = id == kCoordinator ? "coordinator" : view().label_of(id);
    // Opened anew each time: nodes say little, and there may be more of them than open files.
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
        std::fopen(run_.log_file(label).c_str(), "a"),
        [](std::FILE* open) { return open == nullptr ? 0 : std::fclose(open); });
    if (file != nullptr) {
        fmt::print(file.get(), "{:.6f} {}: {}\n", as_seconds(now), to_string(id), text);
    }
    if (setup_.said && (id == kCoordinator || level >= LogLevel::warning)) {
        setup_.said(id, now, level, text);
    }
}

// ---- after events ----

void Simulation::take_digest(Shard& shard) {
    if (!shard.store().initialised()) return;
    for (const LiveBlock& block : shard.store().blocks()) digest_.take(block);
}

void Simulation::ending(NodeId id, Node& node) {
    if (staleness_) staleness_->gone(id);
    if (protocol_ && !broken_) {
        if (auto kept = kept_by(id, node)) {
            broken_ =
                fail(ErrorCode::internal, fmt::format("{} ends with {}", to_string(id), *kept));
        }
    }
    if (id == kCoordinator) {
        last_view_ = coordinator_->view();
        coordinator_ = nullptr;
        end_generation();
    } else if (id.role == Role::shard) {
        take_digest(dynamic_cast<Shard&>(node));
    }
}

void Simulation::after_event(NodeId id) {
    if (id == kCoordinator) {
        if (setup_.seen) setup_.seen(coordinator_->view());
        return tidy_checkpoints(*coordinator_);
    }
    if (id.role != Role::shard) return;
    Shard& shard = dynamic_cast<Shard&>(world_->node(id));
    if (staleness_ && shard.store().initialised()) {
        for (const LiveBlock& block : shard.store().blocks()) {
            if (!block.plan->trainable()) continue;
            staleness_->is_now(block.plan->id, block.epoch, block.version,
                               block.weight_payload().bytes);
        }
    }
    if (!job_->simulate.invariants || broken_) return;
    auto wrong = invariants_.check(id, shard);
    if (!wrong && protocol_) wrong = protocol_->after(id, shard);
    if (!wrong) return;
    broken_ = fail(ErrorCode::internal,
                   fmt::format("invariant broken at event {}, {:.9f} s, {}: {}", world_->events(),
                               as_seconds(world_->now()), to_string(id), *wrong));
}

void Simulation::tidy_checkpoints(const Coordinator& coordinator) {
    const ClusterView& view = coordinator.view();
    if (view.checkpoints.size() == checkpoints_seen_ && view.best == best_seen_) return;
    checkpoints_seen_ = view.checkpoints.size();
    best_seen_ = view.best;
    if (view.best) point_best_to(run_, *view.best);
    std::error_code ignored;
    for (const std::uint64_t number : coordinator.superfluous_checkpoints()) {
        std::filesystem::remove_all(run_.checkpoint_dir() + "/" + std::to_string(number), ignored);
    }
}

// ---- the run ----

const ClusterView& Simulation::view() const {
    return coordinator_ != nullptr ? coordinator_->view() : *last_view_;
}

Outcome Simulation::ended_by_limit() const {
    std::string text = fmt::format(
        "after {:.0f} s of virtual time (simulate.limit_s) the run has "
        "not ended: {}",
        as_seconds(job_->simulate.limit), name_of(view().stage));
    for (const ProcessView& process : view().processes) {
        if (!process.live() || process.last.waiting_for.empty()) continue;
        text += fmt::format("; {} ({}) waits for {}", to_string(process.node),
                            process.last.activity, process.last.waiting_for);
    }
    return {true, fail(ErrorCode::timed_out, text)};
}

Outcome Simulation::run(const std::function<std::optional<Stop>()>& pause_point) {
    constexpr std::uint64_t kEventsBetween = 4096;
    std::uint64_t next = kEventsBetween;
    const auto over = [&] {
        if (world_->events() >= next) {
            next = world_->events() + kEventsBetween;
            if (std::optional<Stop> stop = pause_point()) {
                Message message;
                message.envelope.from = kCoordinator;
                message.body = std::move(*stop);
                world_->post(kCoordinator, Received{std::move(message)});
            }
        }
        const bool down = coordinator_ == nullptr && !begins_again_after_;
        return down || broken_.has_value();
    };
    const bool ended = world_->run_until(over, Time{job_->simulate.limit});
    for (std::uint32_t i = 0; i < job_->shards(); ++i) {
        const NodeId id = node_of(ShardId{i});
        if (world_->alive(id)) take_digest(dynamic_cast<Shard&>(world_->node(id)));
    }
    flush_ledgers();
    if (broken_) return {true, *broken_};
    if (restarts_.refused) return {true, *restarts_.refused};
    if (!ended) return ended_by_limit();
    return *world_->outcome(kCoordinator);
}

SimulationFigures Simulation::figures() const {
    SimulationFigures figures;
    figures.digest = digest_.value();
    figures.events = world_->events();
    figures.virtual_s = as_seconds(world_->now());
    return figures;
}

}  // namespace detente
