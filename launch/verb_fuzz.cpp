// detente fuzz: many seeds of simulated clusters under faults.
#include <memory>

#include "launch/cli.h"
#include "launch/fuzz.h"

namespace detente {

void add_fuzz_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<FuzzOptions>();
    CLI::App* verb =
        app.add_subcommand("fuzz",
                           "Simulates clusters whose shape, policy, network and faults each seed "
                           "draws; every invariant "
                           "is checked at every event, and every run must come to its end");
    CLI::Option* seeds =
        verb->add_option("--seeds", options->seeds, "Which, like 1..2000")->type_name("A..B");
    verb->add_option("--job", options->job,
                     "In place of seeds: a job file that a failure left, judged as it was")
        ->type_name("FILE")
        ->excludes(seeds);
    verb->add_option("--jobs", options->jobs, "Seeds at once (default: 1)")
        ->check(CLI::Range(1, 1024));
    verb->add_flag("--check-determinism", options->twice,
                   "Runs each seed twice and names the first event that differs");
    verb->add_flag("--first-failure", options->first_failure,
                   "Ends at the first failure, without shrinking it");
    verb->add_option("--out", options->out,
                     "Where the shrunk job files of failures go (default: fuzz-failures)")
        ->type_name("DIR");
    verb->callback([options, &exit_code] { exit_code = value_of(fuzz(*options)); });
}

}  // namespace detente
