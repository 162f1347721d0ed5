// An evaluation: a process of its own that loads the model, the merged weights, and scores them.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>

#include "common/file.h"
#include "launch/checkpoint_services.h"
#include "launch/describe.h"
#include "launch/job.h"
#include "launch/latest_checkpoint.h"
#include "launch/roles.h"
#include "launch/run_directory.h"

namespace detente {

namespace {

struct Scored {
    std::uint64_t number = 0;
    std::vector<TaskScore> scores;
};

Result<Scored> score(const std::string& run_dir, std::uint64_t number) {
    const RunDirectory run{run_dir};
    std::error_code unknown;  // why it cannot be told, read_text() says
    if (!std::filesystem::exists(run.job_file(), unknown) && !unknown) {
        const bool is_there = std::filesystem::exists(run_dir, unknown);
        return fail(ErrorCode::io,
                    fmt::format("{}: expected a run directory (like runs/latest), found {}: give "
                                "the one that the run printed, or was given as --out",
                                run_dir, is_there ? "no job.toml in it" : "nothing there"));
    }
    const auto text = read_text(run.job_file(), 4U << 20U);
    if (text.has_error()) return text.error();
    const auto job = parse_job(*text, run.job_file());
    if (job.has_error()) return job.error();
    const std::string wanted = run.checkpoint_dir() + "/" + std::to_string(number);
    const auto checkpoint = find_checkpoint(number == 0 ? run_dir : wanted);
    if (checkpoint.has_error()) return checkpoint.error();
    auto engine = load_engine(job->model_library, engine_options_of(*job));
    if (engine.has_error()) return engine.error();
    auto loaded = load_weights(**engine, checkpoint->directory + "/model.safetensors");
    if (loaded.has_error()) return loaded.error();
    auto scores = (*engine)->evaluate();
    if (scores.has_error()) return scores.error();
    return Scored{checkpoint->number, std::move(*scores)};
}

std::string json_of(const Scored& scored) {
    boost::json::object tasks;
    for (const TaskScore& score : scored.scores) {
        tasks[score.task] = boost::json::object{
            {"accuracy", score.accuracy}, {"loss", score.loss}, {"samples", score.samples}};
    }
    return boost::json::serialize(
        boost::json::object{{"checkpoint", scored.number}, {"tasks", std::move(tasks)}});
}

}  // namespace

ExitCode run_evaluation(const std::string& run_dir, std::uint64_t number, bool json) {
    // What a model library prints while it loads must not mix with the scores.
    const int kept = ::dup(STDOUT_FILENO);
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
    const auto scored = score(run_dir, number);
    std::fflush(stdout);
    ::dup2(kept, STDOUT_FILENO);
    ::close(kept);
    if (scored.has_error()) {
        if (json) std::puts(to_json(scored.error()).c_str());
        std::fprintf(stderr, "detente evaluate: %s\n", scored.error().text.c_str());
        return exit_code_of(scored.error().code);
    }
    if (json) {
        std::puts(json_of(*scored).c_str());
        return ExitCode::ok;
    }
    fmt::print("checkpoint {} of {}\n", scored->number, run_dir);
    for (const TaskScore& score : scored->scores) {
        fmt::print("  {:<20} {:6.2f} %   loss {:.4f}   {} samples\n", score.task,
                   100 * score.accuracy, score.loss, score.samples);
    }
    return ExitCode::ok;
}

}  // namespace detente
