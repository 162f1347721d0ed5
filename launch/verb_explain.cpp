// detente explain RUN --step N: why the gradients of a step became what was pushed.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "launch/cli.h"
#include "launch/explain.h"

namespace detente {
namespace {

struct Options {
    std::string run;
    std::uint64_t step = 0;
    std::optional<std::uint32_t> worker;
    bool as_json = false;
};

int explain_step(const Options& options) {
    std::uint64_t last = 0;
    bool found = false;
    const auto read = read_resolved_steps(
        RunDirectory{options.run}, [&](const NamesRecord& names, const ResolvedStep& step) {
            if (options.worker && step.worker.value != *options.worker) return;
            last = std::max(last, step.step.value);
            if (step.step.value != options.step) return;
            found = true;
            const ExplainedStep explained = explain(names, step);
            fmt::print("{}{}", options.as_json ? to_json(explained) : to_text(explained),
                       options.as_json ? "\n" : "");
        });
    if (read.has_error()) return report("explain", read.error());
    if (found) return 0;
    return report(
        "explain",
        fail(ErrorCode::bad_job,
             fmt::format(
                 "{}: no step {}{} was recorded; the last is {}", options.run, options.step,
                 options.worker ? fmt::format(" of worker:{}", *options.worker) : std::string(),
                 last)));
}

}  // namespace

void add_explain_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<Options>();
    CLI::App* verb = app.add_subcommand(
        "explain", "Says which tasks conflicted in a step, and what was made of their gradients");
    verb->add_option("RUN", options->run, "A run directory")->required();
    verb->add_option("--step", options->step, "The step; each worker counts its own")
        ->required()
        ->check(whole_number());
    verb->add_option("--worker", options->worker, "Of this worker only");
    verb->add_flag("--json", options->as_json, "One JSON object per worker");
    verb->callback([options, &exit_code] { exit_code = explain_step(*options); });
}

}  // namespace detente
