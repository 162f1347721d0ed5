#include "launch/run.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "common/build_id.h"
#include "launch/describe.h"
#include "launch/gpu.h"
#include "launch/job.h"
#include "launch/machine.h"
#include "launch/progress.h"
#include "launch/resume_point.h"
#include "launch/roles.h"
#include "launch/series.h"
#include "launch/staging_plan.h"
#include "launch/summary.h"
#include "launch/sync_plan.h"
#include "launch/worker_vectors.h"

namespace detente {

namespace {

std::string counted(std::uint64_t count, const std::string& what) {
    return fmt::format("{} {}{}", with_commas(count), what, count == 1 ? "" : "s");
}

// What is known before anything is started.
struct Prepared {
    ModelDescription model;
    Plan plan;
    ResumePoint resume;
};

Result<Prepared> prepare(Coordination& wanted, Screen& screen) {
    Prepared prepared;
    Job& job = wanted.job;
    // The workers will be here: said before anything is started.
    std::string device = "cpu";
    if (wanted.start_processes && !wanted.dry_run) {
        auto found = device_of(job, 0);
        if (found.has_error()) return found.error();
        device = std::move(*found);
    }
    screen.line(fmt::format("job       {}: {}, {}, {}", job.name, counted(job.servers, "server"),
                            counted(job.shards(), "shard"), counted(job.workers, "worker")));
    auto model = describe_in_child(job, device);
    if (model.has_error()) return model.error();
    if (auto done = resolve_sync_layers(job, *model); done.has_error()) return done.error();
    auto plan = make_plan(*model, job);
    if (plan.has_error()) return plan.error();
    if (wanted.start_processes) {  // elsewhere each server looks at its own host
        std::vector<ShardId> all;
        all.reserve(job.shards());
        for (std::uint32_t i = 0; i < job.shards(); ++i) all.push_back(ShardId{i});
        auto fits = check_staging(*plan, job, all, memory_of_this_machine(), this_host());
        if (fits.has_error()) return fits.error();
    }
    screen.line(fmt::format(
        "model     {}: {}, {}, {}, {}", model->model, counted(model->tasks.size(), "task"),
        counted(plan->parameters, "parameter"), counted(plan->blocks.size(), "block"),
        counted(model->training_samples, "training sample")));
    if (!wanted.resume.empty()) {
        auto point = resume_point(wanted.resume, *plan, *model);
        if (point.has_error()) return point.error();
        prepared.resume = std::move(*point);
        screen.line(fmt::format("resume    {} ({} samples applied)", prepared.resume.directory,
                                with_commas(prepared.resume.samples_before)));
    }
    prepared.model = std::move(*model);
    prepared.plan = std::move(*plan);
    return prepared;
}

Result<RunDirectory> make_directory(const Coordination& wanted, const Prepared& prepared) {
    auto run = make_run_directory(wanted.out, wanted.job.name);
    if (run.has_error()) return run;
    if (auto done = write_text(run->job_file(), to_toml(wanted.job)); done.has_error()) {
        return done.error();
    }
    if (auto done = write_text(run->model_file(), to_json(prepared.model) + "\n");
        done.has_error()) {
        return done.error();
    }
    return run;
}

Result<void> start_processes(CoordinatorLoop& loop, const Job& job, const Prepared& prepared) {
    const std::string& resume = prepared.resume.directory;
    for (std::uint32_t rank = 0; rank < job.servers; ++rank) {
        std::vector<std::string> arguments = {"server", "--rank", std::to_string(rank),
                                              "--coordinator", loop.control_address()};
        if (!resume.empty()) arguments.insert(arguments.end(), {"--resume", resume});
        std::vector<NodeId> nodes;
        for (std::uint32_t i = 0; i < job.shards_per_server; ++i) {
            nodes.push_back(node_of(ShardId{rank * job.shards_per_server + i}));
        }
        auto started = loop.start(fmt::format("server:{}", rank), std::move(arguments), nodes);
        if (started.has_error()) return started;
    }
    for (std::uint32_t rank = 0; rank < job.workers; ++rank) {
        std::vector<std::string> arguments = {
            "worker",
            "--rank",
            std::to_string(rank),
            "--coordinator",
            loop.control_address(),
            "--incarnation",
            std::to_string(prepared.resume.worker_incarnation.value)};
        if (!resume.empty()) arguments.insert(arguments.end(), {"--resume", resume});
        auto started = loop.start(fmt::format("worker:{}", rank), std::move(arguments),
                                  {node_of(WorkerId{rank})});
        if (started.has_error()) return started;
    }
    return {};
}

std::string stage_text(const ClusterView& view) {
    switch (view.stage) {
        case Stage::gathering:
            return "start     waiting for every process to say hello";
        case Stage::preparing:
            return "prepare   models load, first weights travel";
        case Stage::training:
            return "train";
        case Stage::draining:
            return "drain     workers finish what is in flight";
        case Stage::saving:
            return "save      the checkpoint is written and merged";
        case Stage::evaluating:
            return "evaluate  the checkpoint is scored on the test set";
        case Stage::stopping:
            return "stop      processes end";
        case Stage::finished:
            return "";
    }
    return "";
}

void warn_of(Screen& screen, const Result<void>& done) {
    if (done.has_error()) screen.line("warning   " + done.error().text);
}

CoordinatorLoop::Callbacks callbacks_to(Screen& screen, ProgressMeter& meter, std::FILE* log,
                                        SeriesWriter& series) {
    CoordinatorLoop::Callbacks callbacks;
    callbacks.log = [&screen, log](LogLevel level, const std::string& text) {
        if (log != nullptr) {
            std::fprintf(log, "%s\n", text.c_str());
            std::fflush(log);
        }
        if (level == LogLevel::debug) return;
        const bool plain = level == LogLevel::information;
        screen.line(plain ? "          " + text : "warning   " + text);
    };
    callbacks.said = [&screen](const std::string& label, const std::string& line) {
        screen.line(fmt::format("{} | {}", label, line));
    };
    // What a full disk loses of the series is not worth the run.
    callbacks.seen = [&screen, &series](const ClusterView& view) {
        warn_of(screen, series.note(view));
    };
    callbacks.stage = [&screen, log](const ClusterView& view) {
        const std::string text = stage_text(view);
        if (text.empty()) return;
        if (log != nullptr) std::fprintf(log, "%s\n", text.c_str());
        screen.end_progress();
        screen.line(text);
    };
    callbacks.progress = [&screen, &meter](const ClusterView& view) {
        const ProgressFigures figures = meter.measure(view);
        const bool training = view.stage == Stage::training || view.stage == Stage::draining;
        screen.progress(
            training ? progress_line(figures, view.tasks, screen.columns()) : waiting_line(view),
            view.now);
    };
    return callbacks;
}

ExitCode exit_code_for(const CoordinatorLoop& loop, const Outcome& outcome) {
    if (!outcome.failed) return ExitCode::ok;
    if (outcome.error.code == ErrorCode::cancelled && loop.signal() != 0) {
        return loop.signal() == SIGINT ? ExitCode::interrupted : ExitCode::terminated;
    }
    if (outcome.error.code == ErrorCode::internal &&
        total_books(loop.view()).balance("the run").has_error()) {
        return ExitCode::books;
    }
    return exit_code_of(outcome.error.code);
}

// Whether summary.json could be written; of a failed run its own failure is the one to tell.
Result<void> tell_the_end(const CoordinatorLoop& loop, const Outcome& outcome,
                          const RunDirectory& run, Screen& screen) {
    const Summary summary = summary_of(loop.view(), outcome, run);
    auto written = write_summary(summary, run);
    screen.end_progress();
    if (loop.view().training_began) screen.line("\n" + table(summary));
    if (!outcome.failed) return written;
    warn_of(screen, written);
    if (outcome.error.code == ErrorCode::cancelled && loop.view().first_failure() == nullptr) {
        screen.line("interrupted: " + outcome.error.text);
    } else {
        std::fputs(failure_report(loop.view(), outcome, loop.ended(), run).c_str(), stderr);
    }
    if (!summary.last_checkpoint.empty()) {
        screen.line("to go on from the last checkpoint: detente run JOB --resume " +
                    summary.last_checkpoint);
    }
    return {};
}

int fail_early(const Error& error) {
    std::fprintf(stderr, "detente run: %s\n", error.text.c_str());
    return value_of(exit_code_of(error.code));
}

}  // namespace

ExitCode coordinate(Coordination wanted) {
    Screen screen(stdout, ::isatty(STDOUT_FILENO) == 1);
    const auto refuse = [](const Error& error) { return static_cast<ExitCode>(fail_early(error)); };
    auto prepared = prepare(wanted, screen);
    if (prepared.has_error()) return refuse(prepared.error());
    if (wanted.dry_run) {
        screen.line(describe(prepared->plan, prepared->model) +
                    "\nnothing was started (--dry-run)");
        return ExitCode::ok;
    }
    const auto run = make_directory(wanted, *prepared);
    if (run.has_error()) return refuse(run.error());

    CoordinatorLoopOptions options;
    options.job = wanted.job;
    options.job_text = to_toml(wanted.job);
    options.model = prepared->model;
    options.plan = prepared->plan;
    options.run = *run;
    // Grows with every start and restore on clocks that are not set back.
    options.generation.value = static_cast<std::uint64_t>(
        std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1));
    options.first_checkpoint = prepared->resume.first_checkpoint;
    options.resumed_from = prepared->resume.directory;
    options.samples_before = prepared->resume.samples_before;
    options.methods = prepared->resume.methods;
    options.workers_keep_vectors = keeps_vectors(wanted.job, prepared->model);
    options.host = this_host();
    options.listen_address = wanted.listen_address;
    options.advertise_address = wanted.advertise_address;
    options.port = wanted.port;
    ProgressMeter meter;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> log(
        std::fopen(run->log_file("coordinator").c_str(), "w"),
        [](std::FILE* file) { return file == nullptr ? 0 : std::fclose(file); });
    auto series = SeriesWriter::create(run->series_file(), {});
    if (series.has_error()) return refuse(series.error());
    CoordinatorLoop loop(std::move(options), callbacks_to(screen, meter, log.get(), *series));
    if (auto opened = loop.open(); opened.has_error()) return refuse(opened.error());
    if (wanted.opened) {
        if (auto told = wanted.opened(loop); told.has_error()) return refuse(told.error());
    }
    screen.line(fmt::format("run       {}\nstatus    http://{}/status and /metrics", run->path,
                            loop.http_address()));
    if (wanted.start_processes) {
        auto started = start_processes(loop, wanted.job, *prepared);
        if (started.has_error()) return refuse(started.error());
    }
    const Outcome outcome = loop.run();
    warn_of(screen, series->finish(loop.view()));
    const auto told = tell_the_end(loop, outcome, *run, screen);
    return told.has_error() ? refuse(told.error()) : exit_code_for(loop, outcome);
}

ExitCode run_job(const RunOptions& options) {
    const auto job = read_job(options.job);
    if (job.has_error()) return static_cast<ExitCode>(fail_early(job.error()));
    if (!job->sync_layers.empty() && job->sync_backend == SyncBackend::mpi) {
        return static_cast<ExitCode>(
            fail_early(fail(ErrorCode::bad_job,
                            "sync.backend: 'mpi' needs ranks that mpirun started: use mpirun -n N "
                            "detente join JOB, or set sync.backend = \"auto\"")));
    }
    Coordination wanted;
    wanted.job = *job;
    wanted.out = options.out;
    wanted.resume = options.resume;
    wanted.dry_run = options.dry_run;
    wanted.port = options.port != 0 ? options.port : static_cast<std::uint16_t>(job->port);
    return coordinate(wanted);
}

}  // namespace detente
