// detente simulate JOB: the same job on virtual time, in one process.
#include <memory>

#include "launch/cli.h"
#include "launch/simulate.h"

namespace detente {

void add_simulate_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<SimulateOptions>();
    CLI::App* verb = app.add_subcommand(
        "simulate",
        "Runs the job on virtual time in this process; [simulate] says how long gradients take, "
        "what the network does, and what goes wrong");
    add_job_arguments(*verb, options->job);
    verb->add_option("--seed", options->seed, "Instead of the job's seed: every draw follows it")
        ->check(whole_number());
    verb->add_option("--out", options->out, "The run directory (default: runs/NAME-simulated-TIME)")
        ->type_name("DIR");
    verb->add_option("--resume", options->resume,
                     "Goes on from a run's last complete checkpoint, or from a checkpoint's "
                     "folder; of a real run or a simulated one")
        ->type_name("DIR");
    verb->add_option("--threads", options->threads,
                     "Threads that compute gradients; the result is the same for any number "
                     "(default: one per core; one for builtin models)")
        ->check(CLI::Range(1, 1024));
    verb->add_flag("--check-determinism", options->check_determinism,
                   "Runs twice, the second time into DIR/again, and names the first event that "
                   "differs");
    verb->add_flag("--gaps", options->gaps,
                   "Afterwards also measures, per staleness, how far the weights had moved, and "
                   "the cosine with the gradient at the weights of then");
    verb->callback([options, &exit_code] { exit_code = value_of(simulate_job(*options)); });
}

}  // namespace detente
