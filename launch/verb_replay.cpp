// detente replay RUN: everything a run recorded is done again, and must come out the same; with
// --set staleness.policy=…, what the same arrivals come to under another policy.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "launch/cli.h"
#include "launch/describe.h"
#include "launch/job.h"
#include "launch/machine.h"
#include "launch/progress.h"
#include "launch/replay/arrivals.h"
#include "launch/replay/gap_table.h"
#include "launch/replay/replay.h"
#include "launch/simulate.h"
#include "ps/checkpoint.h"
#include "ps/checkpoint_folder.h"

namespace detente {
namespace {

struct ReplayVerbOptions {
    std::string directory;
    std::vector<std::string> overrides;
    std::string out;
    bool gaps = false;
    bool json = false;
};

// model.* and data.* say where these lie now; anything else is another job.
bool says_where(const std::string& override_text) {
    return override_text.starts_with("model.library=") || override_text.starts_with("data.dir=");
}

// What a checkpoint of the run has for the replayed weights.
enum class Compared { same, nothing_there };
Result<Compared> compare(const Replay& replay, const RunDirectory& run, const Plan& plan) {
    if (!replay.checkpoint()) return Compared::nothing_there;
    auto checkpoint = Checkpoint::open(checkpoint_directory(run.path, *replay.checkpoint()));
    if (checkpoint.has_error()) return checkpoint.error();
    std::vector<BlockId> ids;
    for (const auto& [block, weights] : replay.checkpoint_weights()) ids.push_back(block);
    const auto slices = checkpoint->read(ids);
    if (slices.has_error()) return slices.error();
    for (const BlockSlice& slice : *slices) {
        const Payload& here = replay.checkpoint_weights().at(slice.block);
        if (here.size() == slice.weights.size() &&
            std::memcmp(here.bytes.data(), slice.weights.bytes.data(), here.size()) == 0) {
            continue;
        }
        const Block& block = plan.block(slice.block);
        return fail(ErrorCode::internal,
                    fmt::format("checkpoint {}: block {} (of tensor {}) has other weights than the "
                                "replay, though every gradient was the same",
                                *replay.checkpoint(), slice.block.value, block.tensor));
    }
    return Compared::same;
}

struct Replayed {
    ReplayFigures figures;
    std::uint64_t digest = 0;
    std::optional<std::uint64_t> checkpoint;  // that has the same weights
};

std::string as_json(const Recording& recording, const Replayed& replayed) {
    boost::json::object whole;
    whole["job"] = recording.job.name;
    whole["entries"] = replayed.figures.entries;
    whole["gradients"] = replayed.figures.gradients;
    if (replayed.figures.rounds > 0) whole["rounds_in_step"] = replayed.figures.rounds;
    whole["hashes_compared"] = replayed.figures.hashes;
    whole["applied"] = replayed.figures.applied;
    whole["digest"] = fmt::format("{:016x}", replayed.digest);
    if (replayed.checkpoint) whole["same_as_checkpoint"] = *replayed.checkpoint;
    if (!replayed.figures.gaps.empty()) whole["staleness_gaps"] = gaps_json(replayed.figures.gaps);
    return boost::json::serialize(whole);
}

void tell(const Recording& recording, const Replayed& replayed) {
    const ReplayFigures& figures = replayed.figures;
    fmt::print("gradients {} computed again, {}\n", with_commas(figures.gradients),
               figures.hashes + figures.carried == figures.gradients
                   ? "each with the hash that was recorded"
               : figures.hashes == 0 ? "no hash was recorded (ledger.gradient_hashes)"
                                     : fmt::format("{} with the hash that was recorded",
                                                   with_commas(figures.hashes)));
    if (figures.carried > 0) {
        fmt::print("          {} of them rejected ones, carried to newer weights\n",
                   with_commas(figures.carried));
    }
    if (figures.rounds > 0) {
        fmt::print("in step   {} rounds of averages of nodes, made of these\n",
                   with_commas(figures.rounds));
    }
    fmt::print("updates   {} of blocks applied, {} others as recorded\n",
               with_commas(figures.applied), with_commas(figures.others));
    if (replayed.checkpoint) {
        fmt::print("weights   bit for bit those of checkpoint {}; digest {:016x}\n",
                   *replayed.checkpoint, replayed.digest);
    } else {
        fmt::print("weights   no checkpoint is there to compare them with; digest {:016x}\n",
                   replayed.digest);
    }
    if (!figures.gaps.empty()) fmt::print("\n{}", gap_table(figures.gaps));
    for (const std::string& remark : recording.remarks) fmt::print("remark    {}\n", remark);
}

void warn_of_machine(const Recording& recording, const EnginePool& engines) {
    const std::string here =
        machine_description(recording.job.threads, engines.description().versions);
    for (const std::string& then : recording.machines) {
        if (then == here) continue;
        fmt::print(stderr,
                   "detente replay: recorded with {}; here it is {}: hashes may differ for that "
                   "alone\n",
                   then, here);
    }
}

Result<Replayed> replay_run(const ReplayVerbOptions& options, const Recording& recording) {
    auto engines = EnginePool::create(1, [&recording] {
        return load_engine(recording.job.model_library, engine_options_of(recording.job));
    });
    if (engines.has_error()) return engines.error();
    if (!options.json) warn_of_machine(recording, **engines);
    auto plan = make_plan((*engines)->description(), recording.job);
    if (plan.has_error()) return plan.error();
    ReplayOptions how;
    how.gaps = options.gaps;
    const auto checkpoints = list_checkpoints(recording.run.path);
    if (checkpoints.has_error()) return checkpoints.error();
    how.checkpoints.insert(checkpoints->complete.begin(), checkpoints->complete.end());
    auto replay = Replay::create(recording, *plan, *engines, std::move(how));
    if (replay.has_error()) return replay.error();
    auto figures = (*replay)->run();
    if (figures.has_error()) return figures.error();
    Replayed replayed;
    replayed.figures = std::move(*figures);
    const auto compared = compare(**replay, recording.run, *plan);
    if (compared.has_error()) return compared.error();
    if (*compared == Compared::same) replayed.checkpoint = (*replay)->checkpoint();
    replayed.digest = (*replay)->digest();
    return replayed;
}

int replay_as_it_was(const ReplayVerbOptions& options, const Recording& recording) {
    if (!options.json) {
        fmt::print("replay    {}: {}, {} shards, {} gradients recorded\n", options.directory,
                   recording.job.name, recording.shards.size(),
                   with_commas(recording.steps.size()));
    }
    const auto replayed = replay_run(options, recording);
    if (replayed.has_error()) {
        report("replay", replayed.error());
        const bool differs = replayed.error().code == ErrorCode::internal;
        return value_of(differs ? ExitCode::invariant : exit_code_of(replayed.error().code));
    }
    if (options.gaps) {
        const auto written = write_gaps(recording.run, replayed->figures.gaps);
        if (written.has_error()) return report("replay", written.error());
    }
    if (options.json) {
        fmt::print("{}\n", as_json(recording, *replayed));
    } else {
        tell(recording, *replayed);
    }
    return 0;
}

int judge_again(const ReplayVerbOptions& options, const Recording& recording,
                const std::vector<std::string>& other) {
    const auto times = arrival_times(recording);
    if (times.has_error()) return report("replay", times.error());
    // `latest` points to the new run as soon as there is one.
    std::error_code ignored;
    const std::filesystem::path run = std::filesystem::canonical(options.directory, ignored);
    const std::string trace = (run / "arrivals.txt").string();
    const std::string job_file = (run / "arrivals.toml").string();
    const std::string job = to_toml(job_of_arrivals(recording.job, trace));
    for (const auto& [file, text] : {std::pair(trace, *times), std::pair(job_file, job)}) {
        if (auto written = write_text(file, text); written.has_error()) {
            return report("replay", written.error());
        }
    }
    SimulateOptions simulate;
    simulate.job.job_file = job_file;
    simulate.job.overrides = other;
    simulate.out = options.out;
    const auto& restored = recording.shards.front().restored;
    if (restored) simulate.resume = restored->directory;
    fmt::print("replay    {}: its {} arrivals, judged again\n", options.directory,
               with_commas(recording.steps.size()));
    if (const std::size_t faults = recording.job.simulate.faults.size(); faults > 0) {
        fmt::print(
            "remark    the job's {} [[simulate.fault]] are not made again: what they did to "
            "the arrivals is recorded\n",
            faults);
    }
    for (const LedgerEntry& entry : recording.shards.front().entries) {
        const auto* control = std::get_if<ControlRecord>(&entry.record);
        if (control == nullptr || !changes_policy(*control)) continue;
        fmt::print("remark    the run's own change is not made again: {}\n", control->what);
    }
    return value_of(simulate_job(simulate));
}

int replay(const ReplayVerbOptions& options) {
    std::vector<std::string> where;
    std::vector<std::string> other;
    for (const std::string& text : options.overrides) {
        (says_where(text) ? where : other).push_back(text);
    }
    const auto recording = read_recording(options.directory, where);
    if (recording.has_error()) return report("replay", recording.error());
    if (!other.empty()) return judge_again(options, *recording, other);
    return replay_as_it_was(options, *recording);
}

}  // namespace

void add_replay_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<ReplayVerbOptions>();
    CLI::App* verb = app.add_subcommand(
        "replay", "Does what a run recorded again, bit for bit; or judges its arrivals anew");
    verb->add_option("RUN", options->directory, "A run directory, real or simulated")->required();
    verb->add_option("--set", options->overrides,
                     "KEY=VALUE: what the same arrivals come to under another staleness.policy, "
                     "rule or method; model.library and data.dir say where these lie now")
        ->type_name("KEY=VALUE")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    verb->add_option("--out", options->out,
                     "With --set: the run directory of what they come to (default: "
                     "runs/<name>-simulated-<time>)")
        ->type_name("DIR");
    verb->add_flag(
        "--gaps", options->gaps,
        "Also measures, per staleness, how far the weights had moved, and the cosine "
        "with the gradient at the weights of then (twice the computing); kept in RUN for reports");
    verb->add_flag("--json", options->json, "One JSON object instead of text");
    verb->callback([options, &exit_code] { exit_code = replay(*options); });
}

}  // namespace detente
