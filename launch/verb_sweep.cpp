// detente sweep JOB: a grid over keys of the job file, one process per cell.
#include <memory>

#include "launch/cli.h"
#include "launch/sweep/sweep.h"

namespace detente {

void add_sweep_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<SweepOptions>();
    const auto job = std::make_shared<JobArguments>();
    CLI::App* verb =
        app.add_subcommand("sweep", "Runs a job over a grid of settings and seeds, and resumes it");
    add_job_arguments(*verb, *job);
    verb->add_option("--grid", options->wanted.grid,
                     "KEY=[VALUE, …]: a key of the job file and the values it takes, like --grid "
                     "workers=[1,2,4]; may be repeated, then every combination is run")
        ->type_name("KEY=[VALUE, …]")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    verb->add_option("--seeds", options->wanted.seeds, "Runs of each cell, from the job's seed on")
        ->check(CLI::Range(1U, 1000U));
    verb->add_option("--jobs", options->at_once, "Cells that run at a time")
        ->check(CLI::Range(1U, 256U));
    verb->add_option("--with", options->wanted.verb,
                     "simulate (on virtual time) or run (real processes)")
        ->check(CLI::IsMember({"simulate", "run"}));
    verb->add_option("--out", options->directory,
                     "The sweep's folder (default: sweeps/NAME); the same again resumes it")
        ->type_name("DIR");
    verb->callback([&app, options, job, &exit_code] {
        options->wanted.job_file = job->job_file;
        options->wanted.overrides = job->overrides;
        const auto known = app.get_subcommands([&options](const CLI::App* other) {
            return other->get_name() == options->wanted.verb;
        });
        if (known.empty()) {
            exit_code = report("sweep", fail(ErrorCode::not_supported, "this build has no verb '" +
                                                                           options->wanted.verb +
                                                                           "': use --with run"));
            return;
        }
        const auto code = run_sweep(*options);
        exit_code = code ? value_of(*code) : report("sweep", code.error());
    });
}

}  // namespace detente
