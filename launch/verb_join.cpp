// detente join JOB: one rank of a run that mpirun, srun or torchrun started.
#include <memory>

#include "launch/join.h"
#include "launch/run_verbs.h"

namespace detente {

void add_join_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<JoinOptions>();
    CLI::App* verb =
        app.add_subcommand("join", "Trains as one rank of mpirun -n N, N = 1 + servers + workers");
    add_run_options(*verb, options->run);
    CLI::Option* job = verb->get_option("JOB")->required(false);
    verb->add_option("--rank", options->flags.rank,
                     "This process's rank, if the launcher sets none");
    verb->add_option("--size", options->flags.size, "The number of ranks");
    verb->add_option("--coordinator", options->flags.coordinator, "Where rank 0 is found")
        ->type_name("HOST:PORT");
    verb->add_option("--bind", options->bind,
                     "Where this rank listens, instead of the job's transport.bind_address");
    verb->add_option("--advertise", options->advertise,
                     "What others connect to, instead of the job's transport.advertise_address");
    verb->add_flag("--worker", options->worker,
                   "Takes the place of a worker that was lost or has left, in a job that runs: "
                   "found by --coordinator, or in --out's or runs/latest; needs no JOB");
    verb->callback([options, job, &exit_code] {
        if (!options->worker && job->empty()) throw CLI::RequiredError("JOB");
        exit_code = value_of(join_job(*options, process_variable));
    });
}

}  // namespace detente
