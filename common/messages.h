// Every message between nodes, as domain values. The codec (common/codec) turns them into bytes
// and is the only place that verifies bytes; nodes only ever see these.
//
// Who sends what:
//   worker → shard   PullRequest, Push, CancelNote, Initialise, LeaseRequest (lead), Farewell
//   shard → worker   PullReply, PushReply, CancelReply, InitialiseReply, LeaseReply, FarewellReply,
//                    Refusal, Wait, Restart
//   shard ↔ lead     StageNotice, StageDecision, StageReply (step scope)
//   all ↔ coordinator  Hello, Welcome, Ready, Go, Status, PeerChange, CheckpointRequest/Reply,
//                    Stop, Stopped; PolicyChange, PolicyChanged (the lead); FormGroup, LostGroup
//                    (workers)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/admission.h"
#include "common/collective/group.h"
#include "common/ids.h"
#include "common/payload.h"
#include "common/result.h"

namespace detente {

enum class RequestClass : std::uint8_t { train = 0, tune = 1, serve = 2, control = 3 };
enum class Encoding : std::uint8_t {
    dense = 0,
    rows = 1
};  // rows: refused until sparse tables exist

// On every message. `from`, `incarnation`, `generation` and `build` are filled in by the runtime.
struct Envelope {
    NodeId from;
    Incarnation incarnation{1};
    NodeId to;
    Generation generation;
    std::uint64_t build = 0;
    Epoch shard_epoch;  // of the shard as the sender last knew it; {0} = not known
    RequestClass request_class = RequestClass::train;
    TaskSet tasks;  // task context: those its sender computes; empty = all
    // Relative, from receipt: after that long its sender asks again. {0} = it does not.
    Nanos deadline{0};
    // An answer's: how long its sender took over what it answers, on its own clock; filled in by
    // the runtime. {0} = no answer, or one that comes later.
    Nanos handled{0};
};

// ---- values ----

// Weights of one block on their way to a worker (or back, at initialisation).
struct WeightBlock {
    BlockId block;
    Epoch epoch;
    Version version;
    Payload weights;
    std::optional<std::uint64_t> checksum;  // XXH3-64 of the bytes
};

struct GradientBlock {
    BlockId block;
    TaskSet tasks;  // that contributed; must be within the owner set
    Epoch epoch;    // of the weights the gradient was computed at
    Version base;
    Payload gradient;
    std::optional<std::uint64_t> checksum;
};

// A run of batches of one data epoch: [first, first + count).
struct BatchRange {
    std::uint32_t data_epoch = 0;
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    TaskSet tasks{};  // for which they are computed; empty = all of the model's
    auto operator<=>(const BatchRange&) const = default;
};

enum class Verdict : std::uint8_t { applied = 0, buffered = 1, rejected = 2, lost = 3 };
enum class Advice : std::uint8_t { none = 0, drop = 1, refresh = 2, recompute = 3, compensate = 4 };
const char* name_of(Verdict verdict);
const char* name_of(Advice advice);

// What became of one block of a push.
struct BlockVerdict {
    BlockId block;
    Verdict verdict = Verdict::applied;
    Advice advice = Advice::none;
    ErrorCode reason = ErrorCode::internal;  // meaningful where rejected: over_limit = too stale
    std::uint64_t staleness = 0;
    float step_scale = 1;  // what the learning rate was multiplied by
    Epoch epoch;
    Version version;  // after the verdict
};

// ---- worker and shard ----

struct PullRequest {
    Step step;                  // the step these weights are for
    bool opens = true;          // first request of the step at this shard: opens its books
    std::uint32_t request = 0;  // echoed
    Step acknowledged;          // all steps up to here are settled: the shard may forget them
    std::vector<BlockId> blocks;
    // Step scope: weights of one place in the lead's order, the same on every shard.
    bool cut = false;
};
struct PullReply {
    Step step;
    std::uint32_t request = 0;
    Part part;                       // this message's number …
    std::uint32_t parts = 1;         // … of so many
    std::uint64_t credit_bytes = 0;  // bytes this worker may have in flight to this shard
    std::vector<WeightBlock> blocks;
};

struct Push {
    Step step;
    Part part;
    std::uint32_t parts = 1;  // parts of this step for this shard
    Step opens;  // push_pull: the step the reply's blocks are for; {0} = no blocks wanted
    Step acknowledged;
    BatchRange batch;           // count = 1
    std::uint32_t samples = 0;  // behind this gradient
    // Over all task gradients of the step, the same in each of its parts; 0 = not made. For the
    // ledger: no shard decides by it.
    std::uint64_t gradient_hash = 0;
    Encoding encoding = Encoding::dense;
    std::vector<GradientBlock> blocks;
};
struct PushReply {
    Step step;
    Part part;
    Step opened;  // as asked; {0} = none
    std::vector<BlockVerdict> verdicts;
    std::vector<WeightBlock> blocks;  // push_pull: the blocks of this part, after the verdict
};

enum class CancelReason : std::uint8_t {
    dropped = 0,
    recompute = 1,
    stopping = 2,
    failed = 3,
    in_step = 4  // these blocks were pushed by another worker of its node, for all
};
// Closes a step's books for blocks that will never be pushed.
struct CancelNote {
    Step step;
    CancelReason reason = CancelReason::dropped;
    Step acknowledged;
};
struct CancelReply {
    Step step;
};

// First weights, from the worker the coordinator chose.
struct Initialise {
    Part part;
    std::uint32_t parts = 1;
    std::vector<WeightBlock> blocks;
};
struct InitialiseReply {
    Part part;
};

// Worker ↔ lead shard. Finished batches close earlier leases; ranges given back are leased again.
struct LeaseRequest {
    std::uint32_t request = 0;
    std::vector<BatchRange> finished;
    bool wants_more = true;  // false: only settles
};
struct LeaseReply {
    std::uint32_t request = 0;
    std::vector<BatchRange> granted;  // all the worker holds, what it held before included
    bool no_more = false;             // every batch of the job is finished
    // Where tasks are split over workers: the workers that the lead counts in, ascending. Each
    // places the tasks on them by the same rule (common/partition/task_placement.h).
    std::vector<WorkerId> members{};
};

// A worker's last word to a shard: everything is settled, forget me.
struct Farewell {
    Step acknowledged;
};
struct FarewellReply {};

// A typed no to a message that could not be taken.
struct Refusal {
    ErrorCode code = ErrorCode::bad_message;
    std::string text;
    Step step;  // if known
    Part part;
    std::uint32_t request = 0;
};

// ---- step scope: shard and lead ----

struct Sequence {
    Epoch lead_epoch;
    std::uint64_t number = 0;
    auto operator<=>(const Sequence&) const = default;
};
// One computed gradient, all its parts on all shards.
struct PushId {
    WorkerId worker;
    Incarnation incarnation{1};
    Step step;
    auto operator<=>(const PushId&) const = default;
};
// What a policy measured of one block of a staged gradient; the lead adds up all shards' in block
// order.
struct BlockSums {
    BlockId block;
    double gradient_sq = 0;
    double weights_sq = 0;
    bool operator==(const BlockSums&) const = default;
};
struct StageNotice {
    PushId push;
    bool staged = true;  // false: refused, with the reason
    ErrorCode reason = ErrorCode::internal;
    std::uint64_t version = 0;  // the model's, at which the gradient was computed
    std::uint32_t samples = 0;
    std::uint64_t staged_bytes = 0;
    std::vector<BlockSums> sums;
};
struct StagedPush {
    PushId push;
    float gradient_weight = 1;
};
// Folds the pushes into one gradient (Σ weight·g / denominator) and applies it once.
struct StepCommit {
    std::uint64_t version = 0;  // of the model, afterwards
    double denominator = 1;
    float step_scale = 1;
    std::vector<StagedPush> pushes;
};
struct StepAbort {
    PushId push;
    Advice advice = Advice::refresh;
    ErrorCode reason = ErrorCode::internal;
};
// Coordinator → lead: from now on this staleness policy, in place of staleness.policy. In a
// decision it is what all shards do at that point of their order; where steps are to be decided
// from then on, when they have settled those that began before.
struct PolicyChange {
    std::uint64_t request = 0;
    std::string policy;
    std::vector<std::pair<std::string, std::string>> parameters;
    std::string by;                        // who asked for it, for the ledger
    std::optional<Admission> admission{};  // in place of staleness.admission; nothing = as it is
};
// The lead's answer: decided under that number, or why not.
struct PolicyChanged {
    std::uint64_t request = 0;
    Sequence sequence;
    ErrorCode code = ErrorCode::internal;
    std::string error;   // empty = decided
    bool later = false;  // it is made when every step that has begun is settled
};
// What a conflict method remembers from step to step (worker/resolver.h); small, of size T or T².
struct MethodState {
    std::string method;
    std::uint32_t groups = 0;      // of conflict.scope; 0 = nothing to remember
    std::vector<double> values{};  // group after group, equally many for each
    bool operator==(const MethodState&) const = default;
};
struct WorkerMethod {
    WorkerId worker;
    MethodState state;
};
// To shards: write your slice. To workers whose method remembers something: say it. To the merger:
// make a checkpoint of the slices, and of what the workers said.
struct CheckpointRequest {
    std::uint64_t number = 0;
    std::string directory;
    std::vector<WorkerMethod> methods{};
};
// What one event led to. Shards act on decisions in the order of their numbers, without gaps:
// commits, aborts, what is buffered, changes of policy, checkpoints, holds, cuts; then the workers
// of the pushes are answered, and those released.
struct StageDecision {
    Sequence sequence;
    std::vector<StepCommit> commits;
    std::vector<StepAbort> aborts;
    std::vector<PushId> buffered;  // kept for a later commit; their workers go on
    std::vector<WorkerId> hold;    // given no weights until released
    std::vector<WorkerId> release;
    std::vector<PolicyChange> changes;
    std::vector<CheckpointRequest> checkpoints;  // a cut: every shard's slice is of this point
    // These steps are handed the weights of this point. With a change from block scope to step
    // scope: each worker's last step that is judged block by block.
    std::vector<PushId> cuts;
};
// Every decision up to this one is applied.
struct StageReply {
    Sequence sequence;
};

// Shard → worker, instead of an answer that takes its time.
enum class WaitFor : std::uint8_t {
    verdict = 0,    // the push is staged; its credit is free again
    release = 1,    // the policy lets others catch up first
    push_again = 2  // nothing is known of that push: send it whole
};
struct Wait {
    Step step;
    Part part;                  // of a push
    std::uint32_t request = 0;  // of a pull; 0 = it is about a push
    WaitFor why = WaitFor::verdict;
};
// Shard → worker: what it computes for this step will be rejected; start again at new weights.
struct Restart {
    Step step;
};

// ---- coordinator ----

struct Endpoint {
    NodeId node;
    Incarnation incarnation{1};
    std::string tcp;  // "tcp://127.0.0.1:40001"; empty for nodes that bind nothing
    std::string ipc;  // "ipc:///…", usable by peers with the same host
    std::string host;
};
struct Hello {
    Endpoint endpoint;
    std::uint64_t process = 0;       // pid
    std::string build;               // for people, when builds differ
    bool has_weights = false;        // a shard restored from a checkpoint
    std::uint64_t memory_bytes = 0;  // its machine's; 0 = not told
};
struct Welcome {
    std::string job;    // resolved, TOML
    std::string model;  // description, JSON
    std::vector<Endpoint> peers;
    bool initialise = false;     // to one worker: send the first weights
    MethodState method_state{};  // to a worker of a resumed run: as it was saved
    std::string host;            // the coordinator's, in its greeting
    std::string build;           // likewise; for people, when builds differ
};
struct Ready {};  // shard: has weights; worker: engine loaded, connected
struct Go {};     // to workers: begin
struct NamedValue {
    std::string name;
    double value = 0;
};
// Heartbeat and report in one, every heartbeat_interval.
struct Status {
    std::string activity;     // "computing step 12"
    std::string waiting_for;  // "push reply of shard:1 (part 0 of step 12)"; empty = nothing
    Nanos waited{0};
    std::vector<NamedValue> values;        // counters and gauges: "updates.applied"
    std::vector<std::uint64_t> staleness;  // applied updates (staleness/staleness_bins.h)
    std::vector<double> losses;            // per task, smoothed
    // Steps by the cosine of each pair of tasks (common/conflict/cosine_bins.h), pairs (0, 1),
    // (0, 2) … one after the other; empty = none yet.
    std::vector<std::uint64_t> cosine_bins;
};
struct PeerChange {
    NodeId node;
    Incarnation incarnation{1};
    bool up = false;
    std::string reason;
    Endpoint endpoint;  // where up
};
struct CheckpointReply {
    std::uint64_t number = 0;
    std::string file;
    ErrorCode code = ErrorCode::internal;
    std::string error;         // empty = written
    MethodState method_state;  // a worker's answer has nothing else
};
struct Stop {
    std::string reason;
    bool drain = true;  // workers: finish what is in flight; false: now
};
// A node's last word to the coordinator.
struct Stopped {
    bool failed = false;
    ErrorCode code = ErrorCode::internal;
    std::string error;  // empty unless failed
    Status last;
    MethodState method_state;  // a worker's
};
// Coordinator → worker: average the blocks in step with these from now on; what is under way in the
// group before is given up.
struct FormGroup {
    Group group;
};
// Worker → coordinator: that group is broken, or could not be formed; who is left?
struct LostGroup {
    GroupEpoch epoch;
    std::vector<WorkerId> missing;
    ErrorCode code = ErrorCode::internal;
    std::string error;
};

using Body =
    std::variant<PullRequest, PullReply, Push, PushReply, CancelNote, CancelReply, Initialise,
                 InitialiseReply, LeaseRequest, LeaseReply, Farewell, FarewellReply, Refusal,
                 StageNotice, StageDecision, StageReply, Wait, Restart, Hello, Welcome, Ready, Go,
                 Status, PeerChange, CheckpointRequest, CheckpointReply, Stop, Stopped,
                 PolicyChange, PolicyChanged, FormGroup, LostGroup>;

struct Message {
    Envelope envelope;
    Body body;
};
const char* kind_of(const Body& body);  // "push_reply"
// Bytes of all payloads.
std::uint64_t payload_bytes(const Body& body);

}  // namespace detente
