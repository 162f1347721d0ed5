// What an aggregator's file gives to the catalog: one function that describes the method. A new
// method is a file with its class and its description, and one line in catalog.cpp.
//
// What a method need not do: the catalog puts every method behind the same checks (composed.h). Its
// weights() is called with at least one task, finite entries and losses, and whatever it said it
// needs.
//
// In a job weights are of what two tasks or more own: in a tensor of its own, a head, each task's
// gradient is pushed as it is, whatever the method (common/work.h, CombineWork). So under `mean`,
// `constant` and the methods that weigh losses (`uw`, `imtl_l`, `dwa`, `rlw`, `gls`, `famo`,
// `stch`, `db_mtl`, `gradnorm`) a head learns at its full rate, where one backward of the weighted
// sum of the losses, as the papers on losses have it, would weigh the head's gradient too.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/result.h"

namespace detente::methods {

using MadeAggregator = Result<std::unique_ptr<const Aggregator>>;

struct Method {
    std::string name;
    // Under the paper's names. A job's config holds each of them, at `standard` where the file said
    // nothing; a config made in code may leave them out.
    std::vector<ExplainedParameter> parameters;
    // The catalog has checked that every name in the config is one of `parameters` and comes once;
    // values are checked here (bad_job).
    MadeAggregator (*make)(const AggregatorConfig& config);
    // Paper and year, for lists.
    std::string paper;
};

// The text of a parameter, if the config gives it.
std::optional<std::string_view> parameter(const AggregatorConfig& config, std::string_view name);

// Reads a method's parameters one by one; the first that is wrong is kept as the error.
class Settings {
  public:
    explicit Settings(const AggregatorConfig& config) : config_(config) {}
    double real(std::string_view name, double standard, double lowest, double highest);
    std::uint64_t count(std::string_view name, std::uint64_t standard, std::uint64_t lowest,
                        std::uint64_t highest);
    std::string choice(std::string_view name, const std::vector<std::string>& choices);
    // Numbers separated by ','; brackets around them are taken off. Empty if not given, or if the
    // text is `none`.
    std::vector<double> list(std::string_view name, std::string_view none, double lowest);
    const std::optional<Error>& error() const { return error_; }

  private:
    void wrong(std::string_view name, const std::string& wanted, std::string_view found);

    const AggregatorConfig& config_;
    std::optional<Error> error_;
};

// Splits at `separator` and takes spaces off the ends; always at least one piece.
std::vector<std::string_view> split(std::string_view text, char separator);
// Without the brackets around a list, if it has them.
std::string_view unbracketed(std::string_view list);

// not_finite, naming the first task with NaN or Inf in its gradient, its loss, its product with a
// second batch's gradients or its excess.
Result<void> check_finite(const AggregatorInput& input);
// Whether every gradient is zero, as far as G can tell.
bool all_zero(const Gramian& gramian);
// One value for all tasks, or one per task (bad_job if for another number of tasks).
Result<std::vector<double>> spread(const std::vector<double>& values, std::size_t tasks,
                                   const std::string& what);

// How far a solution may be from its quadratic program's conditions, relative to max|G|, for the
// status to be ok. Rows nearer to opposite than about 1e-4 take weights whose rounding alone is
// more than that; then the status is degenerate.
inline constexpr double kSolvedTo = 1e-10;

// Nash-MTL's and FairGrad's weights, with their statuses (nash.cpp).
AggregatorOutput fair_weights(const Gramian& gramian, double alpha);

}  // namespace detente::methods
