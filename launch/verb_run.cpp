// detente run JOB: coordinator, servers and workers on this machine.
#include <memory>

#include "launch/cli.h"
#include "launch/run.h"
#include "launch/run_verbs.h"

namespace detente {

void add_run_options(CLI::App& verb, RunOptions& options) {
    add_job_arguments(verb, options.job);
    verb.add_option(
            "--out", options.out,
            "The run directory (default: runs/NAME-TIME); the link `latest` beside it points to it")
        ->type_name("DIR");
    verb.add_option("--resume", options.resume,
                    "Goes on from a run's last complete checkpoint, or from a checkpoint's folder")
        ->type_name("DIR");
    verb.add_flag("--dry-run", options.dry_run, "Shows what would run, and starts nothing");
}

void add_run_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<RunOptions>();
    CLI::App* verb = app.add_subcommand("run", "Trains: starts every process on this machine");
    add_run_options(*verb, *options);
    verb->add_option("--port", options->port,
                     "Where the coordinator listens on 127.0.0.1 (default: any free port)");
    verb->callback([options, &exit_code] { exit_code = value_of(run_job(*options)); });
}

}  // namespace detente
