// An aggregator turns the Gramian of the task gradients (and losses, and its own state) into one
// weight per task; the result is wᵀJ. Methods that work coordinate by coordinate have no weights:
// they combine a block's rows themselves. Aggregators are const; state is passed in and saved with
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
#include "common/ids.h"
#include "common/result.h"

namespace detente {

// Serializable state of a method; empty for methods without. Values of no task come first, then
// lists of one value per task, or matrices of tasks by tasks.
struct AggregatorState {
    std::vector<double> values;
};

// What a method is to be given besides the number of tasks.
struct AggregatorNeeds {
    bool gramian = true;  // its entries
    bool losses = false;
    // `cross`: gradients of two independent batches at the same weights.
    bool second_batch = false;
    // Works on a moving average of each task's gradient (average() says of which), kept by whoever
    // holds the gradients: `gramian` is that of the averages, and the result is wᵀ times them.
    bool averages = false;
    // `excess`, for which a sum of squares per task and coordinate is kept (task_vectors.h).
    bool excess = false;
    // Coordinate by coordinate: weights() gives none, combine() gives the result.
    bool coordinates = false;
};

struct AggregatorInput {
    // Of the shared blocks; never null. Gives the number of tasks also to methods that do not need
    // its entries.
    const Gramian* gramian = nullptr;
    std::span<const double> losses;  // one per task; empty unless needs().losses
    std::uint64_t random_key = 0;    // already mixed from (seed, purpose, worker, step)
    const Gramian* cross = nullptr;  // J₁·J₂ᵀ, in general not symmetric; needs().second_batch
    std::span<const double> excess{};  // one per task; needs().excess
    // What the gradients, losses and excess here have been multiplied by already, one per task, for
    // a method with parameters in a loss's unit; empty: ones.
    std::span<const double> preference{};
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
    std::optional<double> kkt_residual;  // of the method's own equations: see the method
    std::optional<double> objective;     // the scalar a method makes of the losses, where it does
};

// y ← keep·y + add·g, per task; y starts as zero.
struct AverageStep {
    std::vector<double> keep;
    std::vector<double> add;
};

// A block's rows for combine(). Real is float where gradients are, double in `detente aggregate`.
template <class Real>
struct CoordinateRows {
    std::span<const Real* const> rows;  // one per task; an empty pointer does not take part
    std::uint64_t random_key = 0;       // of the step and the tensor
    std::uint64_t first = 0;            // the block's first coordinate, counted in the tensor
    std::span<const double> scales{};   // of the rows; empty: ones
};

class Aggregator {
  public:
    virtual ~Aggregator() = default;
    virtual std::string name() const = 0;
    virtual AggregatorNeeds needs() const { return {}; }
    virtual AggregatorState initial_state(std::size_t /*tasks*/) const { return {}; }
    // Where in a state of `tasks` tasks the values stand that these alone would have, in the order
    // of a state of theirs.
    virtual std::vector<std::size_t> state_places(TaskSet members, std::size_t tasks) const;
    // One weight per task (none if needs().coordinates). NaN or Inf in the Gramian or a loss is
    // refused (not_finite), naming the task's index; a parameter written for another number of
    // tasks, or a need not met, is bad_job. A const object may be used from several threads at
    // once, each with its own state.
    virtual Result<AggregatorOutput> weights(const AggregatorInput& input,
                                             AggregatorState& state) const = 0;
    // How the averages take a step's gradients in. Requires: needs().averages; one finite loss per
    // task if needs().losses.
    virtual AverageStep average(std::span<const double> losses, std::size_t tasks) const;
    // The result for a block, a function of its rows and (key, coordinate) alone: the same for any
    // cut. Requires: needs().coordinates; finite rows.
    virtual void combine(const CoordinateRows<float>& block, std::span<float> out) const;
    virtual void combine(const CoordinateRows<double>& block, std::span<double> out) const;
};

// From a job file: a name and its parameters, as text, under the papers' names.
struct AggregatorConfig {
    std::string name = "sum";
    std::vector<std::pair<std::string, std::string>> parameters;
};
std::vector<std::string> aggregator_names();
// The parameters a method takes, those that every method takes (composed.h) last; none = no such
// method.
std::vector<ExplainedParameter> aggregator_parameters(const std::string& name);
// The paper and its year, as "Yu et al. 2020"; "" for no such method.
std::string aggregator_paper(const std::string& name);
// bad_job: unknown method or parameter (naming the nearest valid one), value out of range.
Result<std::unique_ptr<const Aggregator>> make_aggregator(const AggregatorConfig& config);

}  // namespace detente
