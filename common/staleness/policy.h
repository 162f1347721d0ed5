// A staleness policy decides what becomes of an arriving gradient. Policies are const and pure:
// state is passed in, decisions are returned as values, so the very same objects judge on a shard,
// in the simulator and in a replay. One policy per file; the catalog maps names in job files to
// objects.
//
// Scope: with `block` each shard decides alone, per block; with `step` the lead shard decides once
// for the whole push of a worker and all shards commit or abort in the order it numbers. Under step
// scope "version" is the model's: the number of ApplyThese so far.
//
// One event may settle many gradients: an arrival can release those that were buffered or held. The
// subject of an outcome is a number the caller gave with the arrival; it is below 2^53, so that a
// state may keep it among its values.
//
// Two halves. on() turns events into outcomes and sees numbers only. Methods that change the
// gradient itself (delay compensation, momentum per worker) say in needs() which vectors they keep,
// and work on them in correct(), look_ahead() and applied(), block by block, on the shard that has
// the block; all of these are elementwise, so blocks may be cut anywhere.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/config.h"
#include "common/explained_parameter.h"
#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"
#include "common/staleness/worker_half.h"

namespace detente {

enum class Scope { block, step };
const char* name_of(Scope scope);

struct PolicyNeeds {
    bool measures = false;             // step scope: measure() and accepted() are called
    bool corrects = false;             // correct() is called before a gradient is applied
    bool stale_weights = false;        // correct() sees the weights the worker computed at
    std::uint32_t block_vectors = 0;   // vectors kept per block …
    std::uint32_t worker_vectors = 0;  // … and per block and worker, all zero at first
    bool look_ahead = false;           // pulls hand out look_ahead(), not the stored weights
    bool step_averages = false;        // applied() is called with the weights before and after
    bool plain_sgd = false;            // defined for rule sgd without momentum only
    bool rate_above_zero = false;      // divides by the scheduled rate
};

// Serializable; saved with checkpoints. What stands where is said in the policy's own file.
struct PolicyState {
    std::vector<double> values;
    std::map<WorkerId, std::vector<double>> workers;
    // Arrivals that were buffered and not settled yet, in order of arrival.
    struct Kept {
        std::uint64_t subject = 0;
        WorkerId worker;
        double value = 0;
        bool operator==(const Kept&) const = default;
    };
    std::vector<Kept> kept;
    bool operator==(const PolicyState&) const = default;
};

// What measure() found; of an arrival the sums over all its blocks.
struct Measured {
    double gradient_sq = 0;
    double weights_sq = 0;
};

// ---- events ----
using Subject = std::uint64_t;
struct Pulled {  // step scope: the worker was handed the weights of `version` for this step
    WorkerId worker;
    Step step;
    std::uint64_t version = 0;
};
struct Arrived {
    Subject subject = 0;
    WorkerId worker;
    Step step;
    std::uint64_t staleness = 0;
    std::uint64_t updates = 0;          // of the block (block scope) or the model (step scope)
    std::uint64_t samples_applied = 0;  // likewise
    std::uint32_t members = 1;          // workers up
    double learning_rate = 0;           // before the policy
    double progress = 0;                // share of the job's batches that is finished, 0 to 1
    double at_s = 0;                    // the deciding shard's clock
    Measured measured;
};
struct Aborted {  // step scope: the worker's gradient was refused before the policy saw it
    WorkerId worker;
    Step step;
};
struct Joined {  // the worker will push
    WorkerId worker;
};
struct Left {  // it will not: lost, said farewell, or there is no batch for it now
    WorkerId worker;
};
using PolicyEvent = std::variant<Pulled, Arrived, Joined, Left, Aborted>;

// ---- outcomes ----
struct Contribution {
    Subject subject = 0;
    float gradient_weight = 1;  // acts only inside an average
};
// Folds the contributions into one gradient (Σ weight·g / denominator) and applies it once.
struct ApplyThese {
    std::vector<Contribution> pushes;
    double denominator = 1;
    float step_scale = 1;  // multiplies the learning rate
};
struct RejectThis {
    Subject subject = 0;
    Advice advice = Advice::refresh;
    ErrorCode reason = ErrorCode::over_limit;
};
// Kept until a later ApplyThese or RejectThis names it. The worker waits for that, or goes on.
struct BufferThis {
    Subject subject = 0;
    bool worker_waits = true;
};
struct HoldPull {  // this worker is given no weights …
    WorkerId worker;
};
struct ReleasePull {  // … until here
    WorkerId worker;
};
struct CancelWorker {  // tells a worker to stop computing and start again at the new point
    WorkerId worker;
};
using PolicyOutcome =
    std::variant<ApplyThese, RejectThis, BufferThis, HoldPull, ReleasePull, CancelWorker>;

// ---- vectors ----

// One block at an arrival that is to be applied. All spans have the block's length.
struct BlockVectors {
    std::span<const float> weights;               // stored now
    std::span<const float> stale;                 // handed out to this worker; empty if not needed
    std::vector<std::span<float>> block_vectors;  // as many as needs() says
    std::vector<std::span<float>> worker_vectors;
};

class Policy {
  public:
    virtual ~Policy() = default;
    virtual std::string name() const = 0;
    virtual Scope scope() const { return Scope::block; }
    virtual PolicyNeeds needs() const { return {}; }
    virtual PolicyState initial_state() const { return {}; }
    // Step scope: what of a state in a checkpoint a restored lead goes on with. Its members join
    // anew (those the state knows already, and others), none is held, what was buffered is lost.
    virtual PolicyState resumed(const PolicyState& /*saved*/) const { return initial_state(); }
    // Largest staleness this policy ever accepts; nothing = unbounded. Checked as an invariant.
    virtual std::optional<std::uint64_t> bound() const { return std::nullopt; }
    // Step scope: most pushes that wait in state.kept while the workers they are of go on.
    virtual std::size_t most_kept(std::size_t /*workers*/) const { return 0; }
    virtual void on(const PolicyEvent& event, PolicyState& state,
                    std::vector<PolicyOutcome>& outcomes) const = 0;

    // What the policy wants to know of a staged gradient, block by block: it sees numbers only, and
    // no shard has all blocks. The block vectors are as accepted() left them; not called before.
    virtual Measured measure(const BlockVectors& /*block*/,
                             std::span<const float> /*gradient*/) const {
        return {};
    }
    // A gradient that is about to be applied, as its worker sent it.
    virtual void accepted(const BlockVectors& /*block*/,
                          std::span<const float> /*gradient*/) const {}
    // Rewrites one gradient in place before it is folded and applied.
    virtual void correct(const Arrived& /*arrived*/, const PolicyState& /*state*/,
                         const BlockVectors& /*block*/, std::span<float> /*gradient*/) const {}
    // Rewrites a copy of the stored weights into what a pull hands out.
    virtual void look_ahead(double /*learning_rate*/, const BlockVectors& /*block*/,
                            std::span<float> /*weights*/) const {}
    // After an update; block.weights are the new ones. learning_rate: with schedule and scale.
    virtual void applied(double /*learning_rate*/, std::span<const float> /*before*/,
                         const BlockVectors& /*block*/) const {}
    // The worker is gone, and its vectors go now.
    virtual void forgotten(const BlockVectors& /*block*/) const {}
    // The half of the method that runs in the worker; nullptr = none. Owned by the policy.
    virtual const WorkerHalf* worker_half() const { return nullptr; }
};

std::vector<std::string> policy_names();
// The parameters a policy takes, in the order of its own table; none = no such policy.
std::vector<ExplainedParameter> policy_parameters(const std::string& policy);
// Whether the lead shard decides whole steps: by the policy's own scope, or as the job says.
bool decides_steps(Admission admission, const Policy& policy);
bool decides_steps(const Job& job);
// bad_job: this admission is asked for by name, and the policy takes the other one always.
Result<void> check_asked(Admission admission, const Policy& policy);
// bad_job: unknown policy or parameter (nearest named), value out of range.
Result<std::unique_ptr<const Policy>> make_policy(const PolicyConfig& config);

}  // namespace detente
