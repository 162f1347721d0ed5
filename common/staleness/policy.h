// A staleness policy decides what becomes of an arriving gradient. Policies are const and pure:
// state is passed in, decisions are returned as values, so the very same objects judge on a shard,
// in the simulator and in a replay. One policy per file; the catalog maps names in job files to
// objects.
//
// Scope: with `block` each shard decides alone, per block; with `step` the lead shard decides once
// for the whole push of a worker and all shards commit or abort in the order it numbers.
//
// One event may settle many gradients: an arrival can release those that were buffered or held. The
// subject of an outcome is an opaque number the caller gave with the arrival.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/config.h"
#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

enum class Scope { block, step };
const char* name_of(Scope scope);

struct PolicyNeeds {
    bool stale_weights = false;  // the weights a worker computed at (delay compensation)
    bool step_averages = false;  // EMA of step² per coordinate (gap-aware)
    bool look_ahead = false;     // pulls hand out other weights than the stored (DANA)
};

// Serializable; saved with checkpoints.
struct PolicyState {
    std::vector<double> values;
};

// ---- events ----
using Subject = std::uint64_t;
struct Pulled {
    WorkerId worker;
    Step step;
};
struct Arrived {
    Subject subject = 0;
    WorkerId worker;
    Step step;
    std::uint64_t staleness = 0;
    std::uint64_t samples_applied = 0;  // to the block (block scope) or the model (step scope)
    std::uint32_t members = 1;          // workers up
    double learning_rate = 0;           // before the policy
};
struct Joined {
    WorkerId worker;
};
struct Left {
    WorkerId worker;
};
using PolicyEvent = std::variant<Pulled, Arrived, Joined, Left>;

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
struct BufferThis {  // kept until a later ApplyThese or RejectThis names it
    Subject subject = 0;
};
struct HoldPull {  // this worker's pull waits …
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

class Policy {
  public:
    virtual ~Policy() = default;
    virtual std::string name() const = 0;
    virtual Scope scope() const { return Scope::block; }
    virtual PolicyNeeds needs() const { return {}; }
    virtual PolicyState initial_state() const { return {}; }
    // Largest staleness this policy ever accepts; nothing = unbounded. Checked as an invariant.
    virtual std::optional<std::uint64_t> bound() const { return std::nullopt; }
    virtual void on(const PolicyEvent& event, PolicyState& state,
                    std::vector<PolicyOutcome>& outcomes) const = 0;
};

std::vector<std::string> policy_names();
// (name, meaning) of the parameters a policy takes; for errors and --explain.
std::vector<std::pair<std::string, std::string>> policy_parameters(const std::string& policy);
// bad_job: unknown policy or parameter (nearest named), value out of range.
Result<std::unique_ptr<const Policy>> make_policy(const PolicyConfig& config);

}  // namespace detente
