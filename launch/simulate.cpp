#include "launch/simulate.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <thread>

#include "launch/describe.h"
#include "launch/job.h"
#include "launch/progress.h"
#include "launch/replay/gap_table.h"
#include "launch/resume_point.h"
#include "launch/series.h"
#include "launch/simulation.h"
#include "launch/summary.h"
#include "launch/sync_plan.h"
#include "worker/builtin/catalog.h"

namespace detente {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Nanos duration) { return std::chrono::duration<double>(duration).count(); }

ExitCode refuse(const Error& error) { return static_cast<ExitCode>(report("simulate", error)); }

// Signals are asked for between events instead of interrupting one. Threads started later inherit
// the mask.
class PendingSignals {
  public:
    PendingSignals() {
        sigemptyset(&set_);
        for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, number);
        pthread_sigmask(SIG_BLOCK, &set_, &before_);
    }
    ~PendingSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    PendingSignals(const PendingSignals&) = delete;
    PendingSignals& operator=(const PendingSignals&) = delete;

    // What a coordinator is told: the first drains, a second one ends at once.
    std::optional<Stop> next() {
        const timespec at_once{};
        const int number = ::sigtimedwait(&set_, nullptr, &at_once);
        if (number <= 0) return std::nullopt;
        const bool first = first_ == 0;
        if (first) first_ = number;
        return Stop{.reason = fmt::format("{}SIG{}", first ? "" : "a second signal, ",
                                          ::sigabbrev_np(number)),
                    .drain = first};
    }
    int first() const { return first_; }

  private:
    sigset_t set_{};
    sigset_t before_{};
    int first_ = 0;
};

// Stages as lines, progress now and then; times are virtual.
class SimulationScreen {
  public:
    SimulationScreen() : screen_(stdout, ::isatty(STDOUT_FILENO) == 1) {}

    void line(const std::string& text) { screen_.line(text); }
    void said(NodeId id, Time now, LogLevel level, const std::string& text) {
        if (level == LogLevel::debug) return;
        const std::string who = id == kCoordinator ? "" : to_string(id) + ": ";
        screen_.line(fmt::format("{}{}{}{}", when(now),
                                 level >= LogLevel::warning ? "warning: " : "", who, text));
    }
    void show(const ClusterView& view) {
        if (view.stage != shown_) {
            shown_ = view.stage;
            screen_.end_progress();
            screen_.line(when(view.now) + name_of(view.stage));
        }
        const auto wall = Clock::now() - start_;
        if (wall - last_ < std::chrono::milliseconds(250)) return;
        last_ = wall;
        const ProgressFigures figures = meter_.measure(view);
        screen_.progress(when(view.now) + progress_line(figures, view.tasks, screen_.columns()),
                         Time{std::chrono::duration_cast<Nanos>(wall)});
    }
    void end() { screen_.end_progress(); }
    double wall_s() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  private:
    static std::string when(Time now) {
        return fmt::format("{:>12.3f} s  ", seconds(now.time_since_epoch()));
    }
    Screen screen_;
    ProgressMeter meter_;
    Stage shown_ = Stage::gathering;
    Clock::time_point start_ = Clock::now();
    Clock::duration last_{0};
};

Result<RunDirectory> make_directory(const Job& job, const std::string& out,
                                    const ModelDescription& model) {
    auto run = make_run_directory(out, job.name + "-simulated");
    if (run.has_error()) return run;
    if (auto done = write_text(run->job_file(), to_toml(job)); done.has_error()) {
        return done.error();
    }
    if (auto done = write_text(run->model_file(), to_json(model) + "\n"); done.has_error()) {
        return done.error();
    }
    return run;
}

std::size_t threads_for(const SimulateOptions& options, const Job& job) {
    if (job.simulate.staleness.distribution != "none") return 1;  // as Simulation has it
    if (options.threads > 0) return options.threads;
    if (is_builtin(job.model_library)) return 1;
    const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
    return std::max<std::size_t>(1, std::min<std::size_t>(cores / job.threads, job.workers));
}

ExitCode exit_code_for(const Simulation& simulation, const Outcome& outcome, int signal) {
    if (!outcome.failed) return ExitCode::ok;
    if (outcome.error.code == ErrorCode::cancelled && signal != 0) {
        return signal == SIGINT ? ExitCode::interrupted : ExitCode::terminated;
    }
    if (outcome.error.code == ErrorCode::internal &&
        total_books(simulation.view()).balance("the run").has_error()) {
        return ExitCode::books;
    }
    return exit_code_of(outcome.error.code);
}

// Whether summary.json could be written; of a failed run its own failure is the one to tell.
Result<void> tell_the_end(const Simulation& simulation, const Outcome& outcome,
                          const RunDirectory& run, SimulationScreen& screen) {
    const ClusterView& view = simulation.view();
    Summary summary = summary_of(view, outcome, run);
    const SimulationFigures figures = simulation.figures();
    summary.simulated = Summary::Simulated{figures.digest, figures.events, figures.virtual_s};
    summary.wall_s = screen.wall_s();
    auto written = write_summary(summary, run);
    screen.end();
    if (view.training_began) screen.line("\n" + table(summary));
    if (!outcome.failed) return written;
    if (written.has_error()) screen.line("warning: " + written.error().text);
    if (outcome.error.code == ErrorCode::cancelled) {
        screen.line("interrupted: " + outcome.error.text);
    } else {
        std::fputs(failure_report(view, outcome, {}, run).c_str(), stderr);
    }
    return {};
}

// What one simulation is made of, and the second of --check-determinism again.
struct Prepared {
    Job job;
    Plan plan;
    std::string resume;
    std::shared_ptr<EnginePool> engines;
    std::size_t threads = 1;
};

Result<Prepared> prepare(const SimulateOptions& options) {
    Prepared prepared;
    auto job = read_job(options.job);
    if (job.has_error()) return job.error();
    prepared.job = std::move(*job);
    if (options.seed) prepared.job.seed = *options.seed;
    prepared.threads = threads_for(options, prepared.job);
    auto engines = EnginePool::create(prepared.threads, [&prepared] {
        return load_engine(prepared.job.model_library, engine_options_of(prepared.job));
    });
    if (engines.has_error()) return engines.error();
    prepared.engines = std::move(*engines);
    if (auto done = resolve_sync_layers(prepared.job, prepared.engines->description());
        done.has_error()) {
        return done.error();
    }
    auto plan = make_plan(prepared.engines->description(), prepared.job);
    if (plan.has_error()) return plan.error();
    prepared.plan = std::move(*plan);
    if (options.resume.empty()) return prepared;
    // Before anything is made.
    const auto point = resume_point(options.resume, prepared.plan, prepared.engines->description());
    if (point.has_error()) return point.error();
    prepared.resume = point->directory;
    return prepared;
}

Result<std::unique_ptr<Simulation>> simulation_of(const Prepared& prepared, const RunDirectory& run,
                                                  SimulationScreen& screen, EventTrace* trace,
                                                  SeriesWriter* series = nullptr) {
    SimulationSetup setup;
    setup.job = prepared.job;
    setup.plan = prepared.plan;
    setup.run = run;
    setup.engines = prepared.engines;
    setup.resume = prepared.resume;
    setup.threads = prepared.threads;
    setup.said = [&screen](NodeId id, Time now, LogLevel level, const std::string& text) {
        screen.said(id, now, level, text);
    };
    setup.trace = trace;
    if (series != nullptr) {
        setup.seen = [&screen, series](const ClusterView& view) {
            if (auto noted = series->note(view); noted.has_error()) {
                screen.line("warning: " + noted.error().text);
            }
        };
    }
    return Simulation::create(std::move(setup));
}

// A point costs a pass over all processes: thousands of them are looked at less often.
SeriesOptions series_options(const Job& job) {
    SeriesOptions options;
    options.virtual_time = true;
    if (job.workers > 500) options.interval = std::chrono::seconds(5);
    return options;
}

// The same once more: nothing may differ.
ExitCode simulate_again(const Prepared& prepared, const RunDirectory& run, const EventTrace& first,
                        const SimulationFigures& figures, SimulationScreen& screen,
                        PendingSignals& signals) {
    screen.line("again     the same job a second time (--check-determinism)");
    const auto again =
        make_directory(prepared.job, run.path + "/again", prepared.engines->description());
    if (again.has_error()) return refuse(again.error());
    EventTrace trace(first);
    auto simulation = simulation_of(prepared, *again, screen, &trace);
    if (simulation.has_error()) return refuse(simulation.error());
    const Outcome outcome = (*simulation)->run([&] {
        screen.show((*simulation)->view());
        return signals.next();
    });
    if (outcome.failed) return exit_code_for(**simulation, outcome, signals.first());
    screen.end();
    std::optional<std::string> difference = trace.difference();
    const std::uint64_t digest = (*simulation)->figures().digest;
    if (!difference && digest != figures.digest) {
        difference = fmt::format("all events are the same, but the digest is {:016x}, not {:016x}",
                                 digest, figures.digest);
    }
    if (difference) return refuse(fail(ErrorCode::internal, "not deterministic: " + *difference));
    screen.line(fmt::format("again     {} events and the digest are the same",
                            with_commas(trace.events())));
    return ExitCode::ok;
}

}  // namespace

ExitCode simulate_job(const SimulateOptions& options) {
    SimulationScreen screen;
    const auto prepared = prepare(options);
    if (prepared.has_error()) return refuse(prepared.error());
    const Job& job = prepared->job;
    const auto run = make_directory(job, options.out, prepared->engines->description());
    if (run.has_error()) return refuse(run.error());
    screen.line(
        fmt::format("simulate  {}: {} shards, {} workers, seed {}, {} thread{}\nrun       {}",
                    job.name, job.shards(), job.workers, job.seed, prepared->threads,
                    prepared->threads == 1 ? "" : "s", run->path));
    if (!prepared->resume.empty()) screen.line("resume    " + prepared->resume);
    if (job.device != "cpu") {
        screen.line(
            fmt::format("remark    worker.device = \"{}\" is for real workers: a simulation "
                        "computes on the processor",
                        job.device));
    }
    PendingSignals signals;
    EventTrace trace;
    auto series = SeriesWriter::create(run->series_file(), series_options(job));
    if (series.has_error()) return refuse(series.error());
    auto simulation = simulation_of(*prepared, *run, screen,
                                    options.check_determinism ? &trace : nullptr, &*series);
    if (simulation.has_error()) return refuse(simulation.error());
    const Outcome outcome = (*simulation)->run([&] {
        screen.show((*simulation)->view());
        return signals.next();
    });
    if (auto ended = series->finish((*simulation)->view()); ended.has_error()) {
        screen.line("warning: " + ended.error().text);
    }
    const auto told = tell_the_end(**simulation, outcome, *run, screen);
    if (told.has_error()) return refuse(told.error());
    const ExitCode code = exit_code_for(**simulation, outcome, signals.first());
    if (options.gaps && code == ExitCode::ok) {
        const auto gaps = measure_gaps(*run, prepared->plan, prepared->engines);
        if (gaps.has_error()) return refuse(gaps.error());
        screen.line(gap_table(*gaps));
    }
    if (!options.check_determinism || code != ExitCode::ok) return code;
    return simulate_again(*prepared, *run, trace, (*simulation)->figures(), screen, signals);
}

}  // namespace detente
