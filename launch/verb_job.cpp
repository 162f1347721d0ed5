// detente job JOB: the resolved job, bare or explained.
#include <cstdio>
#include <memory>

#include "launch/cli.h"
#include "launch/job.h"

namespace detente {

void add_job_verb(CLI::App& app, int& exit_code) {
    struct Options {
        JobArguments job;
        bool explained = false;
    };
    const auto options = std::make_shared<Options>();
    CLI::App* verb = app.add_subcommand("job", "Checks a job file and prints it resolved");
    add_job_arguments(*verb, options->job);
    verb->add_flag("--explain", options->explained,
                   "Every key with its meaning, unit, default and value");
    verb->callback([options, &exit_code] {
        const auto job = read_job(options->job);
        if (!job) {
            exit_code = report("job", job.error());
            return;
        }
        const std::string text = options->explained ? explain(*job) : to_toml(*job);
        std::fputs(text.c_str(), stdout);
    });
}

}  // namespace detente
