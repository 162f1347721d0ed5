// detente report DIR: a run or a sweep as one HTML file, and its numbers for other programs.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "common/staleness/policy.h"
#include "launch/cli.h"
#include "launch/job.h"
#include "launch/report/numbers.h"
#include "launch/report/page.h"
#include "launch/run_directory.h"

namespace detente {
namespace {

namespace fs = std::filesystem;

struct ReportOptions {
    std::string directory;
    std::string out;  // HTML; empty = DIR/report.html, where nothing else was asked for
    std::string json;
    std::string csv;
    std::string trace;
    double reach = 0;  // 0 = not asked for
    std::optional<double> to_reach() const {
        return reach > 0 ? std::optional(reach) : std::nullopt;
    }
    bool html_wanted() const {
        return !out.empty() || (json.empty() && csv.empty() && trace.empty());
    }
};

// "-" is the standard output; anything else is told.
Result<void> put(const std::string& where, const std::string& text) {
    if (where == "-") {
        const std::size_t written = std::fwrite(text.data(), 1, text.size(), stdout);
        if (written == text.size() && std::fflush(stdout) == 0) return {};
        return fail(ErrorCode::io, "cannot write to the standard output: is its reader gone?");
    }
    if (auto written = write_text(where, text); written.has_error()) return written;
    fmt::print(stderr, "wrote {} ({} KiB)\n", where, (text.size() + 1023) / 1024);
    return {};
}

Result<void> put_numbers(const ReportOptions& options, const std::vector<NamedRun>& runs) {
    if (!options.json.empty()) {
        if (auto done = put(options.json, numbers_as_json(runs)); done.has_error()) return done;
    }
    if (options.csv.empty()) return {};
    return put(options.csv, numbers_as_csv(runs));
}

std::string html_file(const ReportOptions& options) {
    return options.out.empty() ? (fs::path(options.directory) / "report.html").string()
                               : options.out;
}

// Whether the lead shard decided whole steps, as the saved job says.
bool decided_steps(const RunRecord& run) {
    if (run.job_text.empty()) return false;
    const auto job = parse_job(run.job_text, RunDirectory{run.directory}.job_file());
    return job.has_value() && decides_steps(*job);
}

Result<void> report_run(const ReportOptions& options) {
    const auto run = read_run(options.directory);
    if (run.has_error()) return run.error();
    if (auto done = put_numbers(options, {{run->job, {}, std::nullopt, &*run, options.to_reach()}});
        done.has_error()) {
        return done;
    }
    if (options.trace.empty() && !options.html_wanted()) return {};
    auto timeline = read_timeline(RunDirectory{options.directory}.ledger_dir());
    if (timeline.has_error()) return timeline.error();
    timeline->step_scope = decided_steps(*run);
    timeline->step_times = stretches_by_worker(run->points);
    if (!options.trace.empty()) {
        if (auto done = put(options.trace, to_trace_json(*timeline, run->job)); done.has_error()) {
            return done;
        }
    }
    if (!options.html_wanted()) return {};
    const auto conflicts = read_conflict_history(RunDirectory{options.directory});
    if (conflicts.has_error()) return conflicts.error();
    return put(html_file(options), run_page(*run, *timeline, *conflicts));
}

Result<void> report_sweep(const ReportOptions& options) {
    if (!options.trace.empty()) {
        return fail(ErrorCode::bad_job,
                    fmt::format("--trace is of one run, and {} is a sweep: name one of its runs, "
                                "like {}/cells/…",
                                options.directory, options.directory));
    }
    auto sweep = read_sweep_runs(options.directory);
    if (sweep.has_error()) return sweep.error();
    sweep->reach = options.to_reach();
    for (SweepGroup& group : sweep->groups) {
        if (group.timeline) group.timeline->step_scope = decided_steps(group.runs.front());
    }
    if (auto done = put_numbers(options, named_runs(*sweep)); done.has_error()) return done;
    if (!options.html_wanted()) return {};
    return put(html_file(options), sweep_page(*sweep));
}

}  // namespace

void add_report_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<ReportOptions>();
    CLI::App* verb = app.add_subcommand(
        "report", "Shows a run or a sweep as one HTML file that needs no network");
    verb->add_option("DIR", options->directory, "A run directory, or the folder of a sweep")
        ->required();
    verb->add_option("--out", options->out, "The HTML file (default: DIR/report.html)")
        ->type_name("FILE");
    verb->add_option("--json", options->json,
                     "The same numbers as JSON; - is the standard output. With this or one of the "
                     "next two the HTML is written only if --out says where")
        ->type_name("FILE");
    verb->add_option("--csv", options->csv, "The same numbers as CSV")->type_name("FILE");
    verb->add_option("--trace", options->trace,
                     "The timeline of one run for Perfetto (ui.perfetto.dev) or chrome://tracing")
        ->type_name("FILE");
    verb->add_option("--reach", options->reach,
                     "Also when a run first scored this accuracy, mean of tasks, 0 to 1")
        ->type_name("ACCURACY")
        ->check(CLI::Range(0.0, 1.0));
    verb->callback([options, &exit_code] {
        std::error_code ignored;
        const bool is_sweep = fs::exists(sweep_file(options->directory), ignored);
        const auto done = is_sweep ? report_sweep(*options) : report_run(*options);
        if (done.has_error()) exit_code = report("report", done.error());
    });
}

}  // namespace detente
