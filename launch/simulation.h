// A whole run on virtual time, in one process: the real coordinator, shards and workers as nodes of
// a simulated world (common/runtime/sim/world.h), over the same run directory as a real run's.
//
// In place of processes and control links: a Hello is posted for every node at the start, a crash
// reaches the coordinator as its closed connection would, and merging and evaluating are nodes
// (simulated_services.h). Nodes count as hosts of their own: blocks carry checksums.
//
// A restart is what it is in reality: a lost server ends the run, and the job is begun again from
// the run's last checkpoint, in the same world, as the next generation, with a run directory of its
// own within the first (simulation_restart.cpp).
//
// A worker that restarts or joins takes a vacant place as the next incarnation, by its own Hello;
// one that drains is asked to through the coordinator.
//
// Thread: one, but for computations (ComputePool). The same job gives the same events, weights and
// digest for any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/runtime/sim/compute_time.h"
#include "common/runtime/sim/imposed_staleness.h"
#include "common/runtime/sim/world.h"
#include "launch/cluster_view.h"
#include "launch/coordinator.h"
#include "launch/event_trace.h"
#include "launch/late_messages.h"
#include "launch/protocol_invariants.h"
#include "launch/resume_point.h"
#include "launch/run_directory.h"
#include "launch/shard_invariants.h"
#include "launch/weights_digest.h"
#include "ps/ledger.h"
#include "ps/shard.h"
#include "worker/engine_computer.h"
#include "worker/engine_pool.h"
#include "worker/worker.h"

namespace detente {

struct SimulationSetup {
    Job job;
    Plan plan;
    RunDirectory run;  // made
    std::shared_ptr<EnginePool> engines;
    std::string resume;       // a run's folder or a checkpoint's; empty = begins anew
    std::size_t threads = 1;  // that compute; with imposed staleness one does
    // A warning or error of a node, or what the coordinator says, for the screen.
    std::function<void(NodeId, Time, LogLevel, const std::string&)> said;
    // After every event of the coordinator.
    std::function<void(const ClusterView&)> seen;
    EventTrace* trace = nullptr;  // outlives the simulation
};

struct SimulationFigures {
    std::uint64_t digest = 0;  // over (block, epoch, version, weights) of all shards at their ends
    std::uint64_t events = 0;  // handed to nodes
    double virtual_s = 0;
};

// How the restarts of a run went.
struct SimulatedRestarts {
    std::uint32_t done = 0;
    std::uint64_t older_messages = 0;  // of an older generation, refused
    std::optional<Error> refused;      // why the last one did not come about …
    bool expected = false;             // … as it should: no checkpoint, or none that is whole
};

class Simulation {
  public:
    // bad_job: what no validation of the job file can see (a trace); io: the run directory;
    // bad_checkpoint: of `resume`.
    static Result<std::unique_ptr<Simulation>> create(SimulationSetup setup);
    ~Simulation();

    // To the end, or to simulate.limit_s: timed_out then, and who waited for what. `pause_point` is
    // called every few thousand events; what it returns is posted to the coordinator as a signal.
    Outcome run(const std::function<std::optional<Stop>()>& pause_point);

    const ClusterView& view() const;
    SimulationFigures figures() const;
    SimulatedRestarts restarts() const;
    // Where the newest generation's files are: the run directory, or one within it.
    const RunDirectory& directory() const { return run_; }
    sim::World& world() { return *world_; }

  private:
    explicit Simulation(SimulationSetup setup) : setup_(std::move(setup)) {}
    Result<void> make_world();
    sim::WorldOptions world_options();
    Nanos shard_time(NodeId node, const Message& message) const;
    // Nodes (simulation_nodes.cpp).
    Result<void> add_nodes();
    Result<void> add_shard(ShardId id);
    Result<void> add_worker(WorkerId id, bool joins = false);
    void add_coordinator();
    void post_hello(NodeId id);
    Incarnation incarnation_of(NodeId id) const;
    void change_policy(std::size_t number);
    void schedule(const FaultConfig& fault, std::size_t number);
    void crash(NodeId id, const std::string& reason);
    void drain(NodeId id, const std::string& reason);
    // As soon as its place is vacant, while this generation trains.
    void join(NodeId id, Generation generation);
    // Restarts (simulation_restart.cpp).
    void restart(const std::vector<NodeId>& nodes, const FaultConfig& fault,
                 const std::string& reason);
    void begin_again();
    Result<void> go_on_from(const std::string& path);
    Result<void> next_directory();
    void end_generation();
    std::optional<std::string> spoil_checkpoints();
    void send_late();
    void flush_ledgers();
    std::optional<std::string> kept_by(NodeId id, Node& node) const;
    void record(NodeId id, Incarnation incarnation, const LedgerEntry& entry);
    void write_log(NodeId id, Time now, LogLevel level, const std::string& text);
    Result<void> store(StoreOp& operation);
    void ending(NodeId id, Node& node);
    void impose_staleness();
    void take_digest(Shard& shard);
    void sent(NodeId to, Message& message);
    void handed(NodeId id, Time now, const Event& event);
    void after_event(NodeId id);
    void tidy_checkpoints(const Coordinator& coordinator);
    Outcome ended_by_limit() const;

    SimulationSetup setup_;
    RunDirectory run_;  // of this generation
    ResumePoint point_;
    std::shared_ptr<const Job> job_;
    std::shared_ptr<const Plan> plan_;
    std::shared_ptr<SampleOrders> orders_;
    std::shared_ptr<TaskPlacement> placement_;
    std::map<NodeId, Incarnation> joined_;  // workers of this generation that took a place
    std::optional<sim::ComputeTimes> times_;
    std::optional<sim::ImposedStaleness> staleness_;
    Generation generation_{1};
    std::vector<std::unique_ptr<EngineComputer>> computers_;
    std::map<std::pair<NodeId, Incarnation>, std::unique_ptr<LedgerWriter>> ledgers_;
    WeightsDigest digest_;
    ShardInvariants invariants_;
    std::unique_ptr<ProtocolInvariants> protocol_;  // where the job asks for it
    const Coordinator* coordinator_ = nullptr;      // while it lives
    std::optional<ClusterView> last_view_;
    std::size_t checkpoints_seen_ = 0;
    std::optional<std::uint64_t> best_seen_;
    std::optional<Error> broken_;  // an invariant, or the ledger's disk
    // A server was lost: so long after the run's end it is begun again.
    std::optional<Nanos> begins_again_after_;
    std::vector<FaultConfig> spoiled_;  // what the next restart will find of its checkpoint
    LateMessages late_;
    bool keeps_late_ = false;
    SimulatedRestarts restarts_;
    std::unique_ptr<sim::ComputePool> pool_;
    std::unique_ptr<sim::World> world_;  // first to go
};

}  // namespace detente
