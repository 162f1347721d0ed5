// detente plan JOB: which block lives where, and how even the shards are; or, from a measured run,
// which parts of the model tasks should have for themselves, or nodes keep in step.
#include <cstdio>
#include <memory>

#include "common/partition/plan.h"
#include "launch/cli.h"
#include "launch/describe.h"
#include "launch/mask_plan.h"
#include "launch/split_plan.h"
#include "launch/staging_plan.h"
#include "launch/sync_plan.h"

namespace detente {
namespace {

struct PlanOptions {
    JobArguments job;
    std::string masks_from;  // a run directory; empty = print the plan
    bool strided = false;
    double shared = 0.6;
    std::string sync_from;  // likewise
    double part = 0.5;
};

int print_plan(const PlanOptions& options) {
    auto job = read_job(options.job);
    if (!job) return report("plan", job.error());
    const auto model = describe_in_child(*job);
    if (!model) return report("plan", model.error());
    if (!options.masks_from.empty()) {
        auto masks = plan_masks(RunDirectory{options.masks_from}, *model, *job, options.shared);
        if (!masks) return report("plan", masks.error());
        for (MaskConfig& mask : masks->masks) {
            if (options.strided) mask.exclusive = ExclusiveParts::strided;
        }
        std::fputs(to_text(*masks).c_str(), stdout);
        return 0;
    }
    if (!options.sync_from.empty()) {
        const auto sync = plan_sync(RunDirectory{options.sync_from}, *model, *job, options.part);
        if (!sync) return report("plan", sync.error());
        std::fputs(to_text(*sync).c_str(), stdout);
        return 0;
    }
    if (auto resolved = resolve_sync_layers(*job, *model); !resolved) {
        return report("plan", resolved.error());
    }
    const auto plan = make_plan(*model, *job);
    if (!plan) return report("plan", plan.error());
    std::fputs((describe(*plan, *model) + describe_split(*plan, *model, *job) +
                describe_staging(*plan, *job))
                   .c_str(),
               stdout);
    return 0;
}

}  // namespace

void add_plan_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<PlanOptions>();
    CLI::App* verb =
        app.add_subcommand("plan", "Prints which block lives on which shard, and the balance");
    add_job_arguments(*verb, options->job);
    CLI::Option* masks = verb->add_option(
        "--masks", options->masks_from,
        "Instead: [[mask]] entries that keep shared what conflicted least in this run");
    verb->add_option("--shared", options->shared, "With --masks: the part that stays shared (0.6)")
        ->needs(masks)
        ->check(CLI::Range(0.0, 1.0));
    verb->add_option_function<std::string>(
            "--exclusive",
            [options](const std::string& parts) { options->strided = parts == "strided"; },
            "With --masks: what is not shared is dealt out in runs (the default), or strided")
        ->needs(masks)
        ->check(CLI::IsMember({"runs", "strided"}));
    CLI::Option* sync = verb->add_option(
        "--sync", options->sync_from,
        "Instead: the [sync] table that keeps in step what conflicted most in this run");
    sync->excludes(masks);
    verb->add_option("--part", options->part,
                     "With --sync: the part of the shared parameters that may be in step (0.5)")
        ->needs(sync)
        ->check(CLI::Range(0.0, 1.0));
    verb->callback([options, &exit_code] { exit_code = print_plan(*options); });
}

}  // namespace detente
