// detente plan JOB: which block lives where, and how even the shards are.
#include <cstdio>
#include <memory>

#include "common/partition/plan.h"
#include "launch/cli.h"
#include "launch/describe.h"

namespace detente {
namespace {

int print_plan(const JobArguments& arguments) {
    const auto job = read_job(arguments);
    if (!job) return report("plan", job.error());
    const auto model = describe_in_child(*job);
    if (!model) return report("plan", model.error());
    const auto plan = make_plan(*model, *job);
    if (!plan) return report("plan", plan.error());
    std::fputs(describe(*plan, *model).c_str(), stdout);
    return 0;
}

}  // namespace

void add_plan_verb(CLI::App& app, int& exit_code) {
    const auto arguments = std::make_shared<JobArguments>();
    CLI::App* verb =
        app.add_subcommand("plan", "Prints which block lives on which shard, and the balance");
    add_job_arguments(*verb, *arguments);
    verb->callback([arguments, &exit_code] { exit_code = print_plan(*arguments); });
}

}  // namespace detente
