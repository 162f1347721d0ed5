// How long a simulated gradient takes: a function of (seed, worker, number of the gradient), and,
// for `markov`, of the worker's gradients before it.
//
// `trace`: a worker takes the times of its own lines, from the first again after the last. A worker
// that has no line takes those of all, in the order of the file, beginning at the line of its
// number.
//
// Thread: the world's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/runtime/sim/index_formula.h"
#include "common/simulation_config.h"

namespace detente::sim {

// What simulate.compute.distribution may be.
std::vector<std::string> compute_time_names();

class ComputeTimes {
  public:
    // bad_job: an unknown distribution; a formula that is none; a trace that is missing, or a line
    // of it that is no "WORKER SECONDS", named with its number.
    static Result<ComputeTimes> create(const ComputeTimeConfig& config, std::uint64_t seed);

    // `count`: of the worker's computations, from 0; not each of them is a gradient. Requires:
    // asked in order, for each gradient once.
    Nanos next(std::uint32_t worker, std::uint64_t count);

  private:
    enum class Kind {
        constant,
        gamma,
        exponential,
        half_normal,
        lognormal,
        pareto,
        markov,
        index,
        trace
    };
    ComputeTimes(ComputeTimeConfig config, Kind kind, std::uint64_t seed)
        : config_(std::move(config)), kind_(kind), seed_(seed) {}
    Result<void> read_trace();
    double next_traced(std::uint32_t worker);
    double draw(std::uint32_t worker, std::uint64_t count);  // over the mean
    double factor(std::uint32_t worker) const;

    ComputeTimeConfig config_;
    Kind kind_;
    std::uint64_t seed_;
    std::optional<IndexFormula> formula_;     // index
    std::vector<bool> slow_;                  // markov, by worker
    std::vector<std::vector<double>> trace_;  // seconds, by worker; empty: has no line
    std::vector<double> all_traced_;          // of all workers, as in the file
    std::vector<std::size_t> asked_;          // trace: times taken, by worker
};

}  // namespace detente::sim
