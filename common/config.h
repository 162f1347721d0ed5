// A resolved job: what the job file and --set said, with every default filled in. Plain values;
// parsing, validation and explanation live in launch/job.h, so nodes never see TOML.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/admission.h"
#include "common/conflict/aggregator.h"
#include "common/conflict/scope.h"
#include "common/ids.h"
#include "common/rules/rule.h"
#include "common/rules/schedule.h"
#include "common/simulation_config.h"

namespace detente {

enum class OnRejection { drop, refresh, recompute, compensate };
enum class OnNotFinite { stop, skip };             // the step
enum class OnLoss { carry_on, stop };              // "continue" | "stop"
enum class ChecksumMode { automatic, on, off };    // "auto": between hosts only
enum class TransportKind { automatic, tcp, ipc };  // "auto": ipc where both ends share a host

enum class LedgerConflicts { layers, whole, off };

// "auto": shared memory where the members share a host.
enum class SyncBackend { automatic, shared_memory, nccl, mpi };

struct PolicyConfig {
    std::string name = "bounded_reject";                          // staleness.policy
    std::vector<std::pair<std::string, std::string>> parameters;  // "tau_max" → "8"
};

struct TaskConfig {                    // [[task]]
    std::string name;                  // must be one of the model's
    std::vector<std::string> exclude;  // tensors this task must not update, by name pattern
};

// How what is not shared is dealt out: in runs as long as blocks, or element after element by
// turns.
enum class ExclusiveParts { runs, strided };

struct MaskConfig {  // [[mask]]: the first whose pattern matches a tensor's name wins
    std::string pattern;
    double shared = 0;  // part of each tensor that all its owners update, in [0, 1]
    ExclusiveParts exclusive = ExclusiveParts::runs;
};

// How a server resolves an arriving gradient of one task against what it remembers of the others'.
enum class AcrossMethod { off, project };

struct AcrossConfig {  // [across]
    AcrossMethod method = AcrossMethod::off;
    double ema = 0.9;       // of a task's remembered gradient, kept per push of that task
    double half_life = 16;  // versions of a block after which a memory counts half
    double compensate = 0;  // lambda of the delay compensation before cosines; 0 = as it came
};

struct RuleFor {  // [[rule.for]]: the first whose pattern matches a tensor's name wins
    std::string pattern;
    RuleConfig rule;
    ScheduleConfig schedule;
};

struct PolicyFor {  // [[staleness.for]]
    std::string pattern;
    PolicyConfig policy;
};

struct Job {
    // top level
    std::string name = "job";
    std::uint64_t seed = 1;
    std::uint32_t servers = 1;
    std::uint32_t shards_per_server = 1;
    std::uint32_t workers = 1;  // it begins with
    std::uint32_t places = 0;   // for workers; 0 = as many as it begins with

    // [model]
    std::string model_library;                                       // absolute after resolution
    std::vector<std::pair<std::string, std::string>> model_options;  // [model.options]
    std::vector<std::string> frozen;                                 // name patterns
    std::vector<TaskConfig> tasks;
    std::vector<MaskConfig> masks;

    // [data]
    std::string dataset_dir;  // data.dir; empty = the model's own default
    std::uint32_t batch_samples = 64;
    std::uint32_t data_epochs = 1;
    std::uint32_t lease_batches = 8;  // batches per lease

    // [worker]
    bool push_pull = true;
    std::uint32_t pull_ahead = 0;   // 0 | 1
    bool consistent_pulls = false;  // step scope: weights of one place in the lead's order
    OnRejection on_rejection = OnRejection::refresh;
    std::uint32_t most_recomputes = 3;  // compensations count too
    double compensate_lambda = 0.04;
    double clip_norm = 0;  // global norm; 0 = off
    std::uint32_t threads = 1;
    std::string device = "cpu";  // or "cuda", "cuda:N"
    bool split_tasks = false;    // each step is of one task; tasks are placed on workers

    // [across]: where tasks are split over workers
    AcrossConfig across;

    // [gates]
    bool gates_enabled = true;
    double gate_initial = -2;

    // [conflict], [staleness], [rule], [rule.schedule]
    AggregatorConfig aggregator;
    ConflictScope conflict_scope = ConflictScope::global;  // conflict.scope
    ConflictSpace conflict_space = ConflictSpace::parameters;
    OnNotFinite on_not_finite = OnNotFinite::stop;
    std::uint32_t conflict_every = 1;  // steps that may share one solution
    double conflict_drift = 0.1;       // ‖G − G_then‖ / ‖G_then‖ up to which they do
    PolicyConfig policy;
    Admission admission = Admission::block;  // staleness.admission
    std::vector<PolicyFor> policy_for;
    RuleConfig rule;
    ScheduleConfig schedule;
    std::vector<RuleFor> rule_for;

    // [sync], [launch]
    std::vector<std::string> sync_layers;  // name patterns; empty = all is asynchronous
    std::string sync_measured;             // a run directory, for layers = "auto"
    std::uint32_t sync_every = 1;          // gradients of a worker from one average to the next
    SyncBackend sync_backend = SyncBackend::automatic;
    Nanos sync_deadline = std::chrono::seconds(30);  // for the other members, at each average
    std::string sync_nccl_library;                   // for backend nccl; empty = as built
    std::string sync_cuda_library;                   // likewise
    std::uint32_t nodes = 0;                         // 0 = hosts are nodes; else virtual ones

    // [blocks]
    std::uint64_t block_bytes = 1U << 20U;  // multiple of 4096

    // [transport]
    TransportKind transport = TransportKind::automatic;
    ChecksumMode checksum = ChecksumMode::automatic;
    std::uint64_t message_bytes = 1U << 20U;  // target of a push's part; at most 4 MiB
    std::uint64_t credit_bytes = 32U << 20U;  // a shard's budget for pushes in flight, all workers
    // "auto", an address, an interface, or a network that this host is in.
    std::string bind_address = "auto";
    std::string advertise_address = "auto";  // what peers connect to; may be a name too
    std::uint32_t port = 0;  // 0 = free ones; else the coordinator's, shard i has port + 1 + i

    // [on_loss]
    OnLoss on_worker_loss = OnLoss::carry_on;

    // [evaluate], [checkpoint]
    std::uint64_t evaluate_every_samples = 0;    // 0 = at the end only
    std::uint64_t checkpoint_every_samples = 0;  // 0 = at the end and on a signal only
    std::uint32_t checkpoints_kept = 2;

    // [ledger]
    LedgerConflicts ledger_conflicts = LedgerConflicts::layers;
    bool gradient_hashes = true;  // of every computed gradient, so that a replay can compare

    // [deadlines]
    Nanos start_deadline = std::chrono::seconds(60);  // every process has said hello
    Nanos reply_deadline = std::chrono::seconds(2);   // then the request is sent again
    Nanos peer_deadline = std::chrono::seconds(5);    // silence after which a process is lost
    Nanos heartbeat_interval = std::chrono::milliseconds(500);
    Nanos stop_deadline = std::chrono::seconds(10);  // draining and checkpoint at the end

    SimulationConfig simulate;  // [simulate]

    std::uint32_t shards() const { return servers * shards_per_server; }
    // At once; their ids are below it.
    std::uint32_t most_workers() const { return places > workers ? places : workers; }
};

}  // namespace detente
