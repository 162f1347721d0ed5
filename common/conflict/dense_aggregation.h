// A method over whole rows in double: everything a worker does around an aggregator, plainly, for
// `detente aggregate`, for code that has its gradients at hand, and for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/conflict/aggregator.h"

namespace detente {

using DenseRows = std::vector<std::vector<double>>;  // one per task, equally long

struct DenseStep {
    DenseRows rows;
    std::vector<double> losses;  // one per task, or none
    DenseRows second;            // of an independent batch; empty: none
};

struct DenseResult {
    AggregatorOutput output;
    // wᵀ·rows (times the averages, for methods on averages; combined, for those by coordinates).
    std::vector<double> result;
    Gramian gramian;  // of the rows
};

// Owner: whoever made it. Keeps the method's state from step to step.
class DenseAggregation {
  public:
    DenseAggregation(std::shared_ptr<const Aggregator> method, std::uint64_t seed)
        : method_(std::move(method)), seed_(seed) {}

    // bad_job: rows that are not equally long, of another number than in the step before, or a need
    // of the method not met; not_finite, naming the task. After an error the state is as before.
    Result<DenseResult> step(const DenseStep& step);
    const AggregatorState& state() const { return state_; }

  private:
    Result<void> check(const DenseStep& step) const;

    std::shared_ptr<const Aggregator> method_;
    std::uint64_t seed_;
    std::uint64_t steps_ = 0;
    AggregatorState state_;
    DenseRows kept_;  // averages or sums of squares
};

Gramian gramian_of(const DenseRows& rows);
// J₁·J₂ᵀ.
Gramian cross_gramian_of(const DenseRows& first, const DenseRows& second);

}  // namespace detente
