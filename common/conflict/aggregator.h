// An aggregator turns the Gramian of the task gradients (and losses, and its own state) into one
// weight per task; the result is wᵀJ. Aggregators are const; state is passed in and saved with
// checkpoints; randomness is a function of the key they are handed. One paper per file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/explained_parameter.h"
#include "common/result.h"

namespace detente {

// Serializable state of a method; empty for methods without.
struct AggregatorState {
    std::vector<double> values;
};

struct AggregatorInput {
    // Of the shared blocks; never null. Gives the number of tasks also to methods that do not need
    // its entries.
    const Gramian* gramian = nullptr;
    std::span<const double> losses;  // one per task; empty unless needs().losses
    std::uint64_t random_key = 0;    // already mixed from (seed, purpose, worker, step)
};

enum class AggregatorStatus {
    ok,
    all_zero,    // every gradient is zero: weights are the documented choice
    degenerate,  // the paper leaves the case open: weights are the documented choice
};
const char* name_of(AggregatorStatus status);

struct AggregatorOutput {
    std::vector<double> weights;  // one per task
    AggregatorStatus status = AggregatorStatus::ok;
    std::optional<double> kkt_residual;  // of the method's quadratic program, relative to max|G|
};

struct AggregatorNeeds {
    bool gramian = true;
    bool losses = false;
};

class Aggregator {
  public:
    virtual ~Aggregator() = default;
    virtual std::string name() const = 0;
    virtual AggregatorNeeds needs() const { return {}; }
    virtual AggregatorState initial_state(std::size_t /*tasks*/) const { return {}; }
    // One weight per task. NaN or Inf in the Gramian or a loss is refused (not_finite), naming the
    // task's index; a parameter written for another number of tasks is bad_job. A const object may
    // be used from several threads at once, each with its own state.
    virtual Result<AggregatorOutput> weights(const AggregatorInput& input,
                                             AggregatorState& state) const = 0;
};

// From a job file: a name and its parameters, as text, under the papers' names.
struct AggregatorConfig {
    std::string name = "sum";
    std::vector<std::pair<std::string, std::string>> parameters;
};
std::vector<std::string> aggregator_names();
// The parameters a method takes; none = no such method.
std::vector<ExplainedParameter> aggregator_parameters(const std::string& name);
// bad_job: unknown method or parameter (naming the nearest valid one), value out of range.
Result<std::unique_ptr<const Aggregator>> make_aggregator(const AggregatorConfig& config);

}  // namespace detente
