#include "launch/fuzz.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "common/invariant.h"
#include "launch/describe.h"
#include "launch/event_trace.h"
#include "launch/fuzz_case.h"
#include "launch/job.h"
#include "launch/job_arguments.h"
#include "launch/simulation.h"

namespace detente {
namespace {

constexpr unsigned kMostSeconds = 600;  // by the clock: for what stands still

struct Ran {
    FuzzVerdict verdict;
    std::uint64_t digest = 0;
};

// A gradient that a fault spoils is part of its node's average, so that every member finds NaN;
// which stops the run, named, as conflict.on_not_finite says. Elsewhere the shard refuses it.
bool stopped_by_fault(const Job& job, const Outcome& outcome) {
    const bool spoils =
        std::any_of(job.simulate.faults.begin(), job.simulate.faults.end(),
                    [](const FaultConfig& fault) { return fault.kind == FaultKind::nan; });
    return spoils && !job.sync_layers.empty() && outcome.failed &&
           outcome.error.code == ErrorCode::not_finite;
}

FuzzVerdict verdict_of(const Job& job, const Simulation& simulation, const Outcome& outcome) {
    if (outcome.failed && outcome.error.code == ErrorCode::internal) {
        return {FuzzEnd::broken, outcome.error.text};
    }
    const SimulatedRestarts restarts = simulation.restarts();
    if (restarts.refused) {
        if (restarts.expected) return {};
        return {FuzzEnd::no_progress, "the restart was refused: " + restarts.refused->text};
    }
    // Whoever is lost before training begins ends the run, named: there is nothing to lose yet.
    const Failure* lost = simulation.view().first_failure();
    if (outcome.failed && !simulation.view().training_began && lost != nullptr &&
        !lost->told_by_itself) {
        return {};
    }
    if (stopped_by_fault(job, outcome)) return {};
    if (outcome.failed) return {FuzzEnd::no_progress, outcome.error.text};
    const Books books = total_books(simulation.view());
    if (books.in_flight > 0) {
        return {FuzzEnd::broken, fmt::format("{} blocks are still in flight at the end of the run",
                                             books.in_flight)};
    }
    const double done = batches_done(simulation.view());
    if (done < 1) {
        return {FuzzEnd::no_progress,
                fmt::format("the run ended with {:.1f} % of its batches finished", done * 100)};
    }
    return {};
}

Result<Ran> run_once(const Job& job, const std::string& folder, EventTrace* trace) {
    auto engines = EnginePool::create(
        1, [&job] { return load_engine(job.model_library, engine_options_of(job)); });
    if (engines.has_error()) return engines.error();
    auto plan = make_plan((*engines)->description(), job);
    if (plan.has_error()) return plan.error();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    const auto run = make_run_directory(folder, job.name);
    if (run.has_error()) return run.error();
    Ran ran;
    SimulationSetup setup;
    setup.job = job;
    setup.plan = std::move(*plan);
    setup.run = *run;
    setup.engines = *engines;
    setup.trace = trace;
    auto simulation = Simulation::create(std::move(setup));
    if (simulation.has_error()) return simulation.error();
    const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
    ran.verdict = verdict_of(job, **simulation, outcome);
    ran.digest = (*simulation)->figures().digest;
    std::filesystem::remove_all(folder, ignored);
    return ran;
}

struct Child {
    pid_t process = -1;
    int from = -1;
    std::chrono::milliseconds processor_time{};
};

// Ends this process when it has used up that much.
void limit(std::chrono::milliseconds processor_time) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(processor_time);
    itimerval timer{};
    timer.it_value.tv_sec = seconds.count();
    timer.it_value.tv_usec = std::chrono::microseconds(processor_time - seconds).count();
    invariant(::setitimer(ITIMER_PROF, &timer, nullptr) == 0, "a time that a timer can have");
    ::alarm(kMostSeconds);
}

Child start(const Job& job, bool twice, std::chrono::milliseconds processor_time) {
    std::array<int, 2> ends{};
    invariant(::pipe(ends.data()) == 0, "a pipe for each child (ulimit -n)");
    std::fflush(nullptr);
    const pid_t process = ::fork();
    invariant(process >= 0, "a process for each case (ulimit -u)");
    if (process > 0) {
        ::close(ends[1]);
        return {process, ends[0], processor_time};
    }
    limit(processor_time);
    const std::string folder =
        (std::filesystem::temp_directory_path() / fmt::format("detente-fuzz-{}", ::getpid()))
            .string();
    const FuzzVerdict verdict = judge(job, folder, twice);
    const std::string told = std::to_string(static_cast<int>(verdict.end)) + verdict.text;
    const ssize_t written = ::write(ends[1], told.data(), std::min<std::size_t>(told.size(), 4096));
    ::_exit(written > 0 ? 0 : 1);
}

// Requires: the child has ended with this status.
FuzzVerdict take(const Child& child, int status) {
    std::string told(4096, '\0');
    const ssize_t got = ::read(child.from, told.data(), told.size());
    ::close(child.from);
    std::error_code ignored;
    std::filesystem::remove_all(
        std::filesystem::temp_directory_path() / fmt::format("detente-fuzz-{}", child.process),
        ignored);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        return {FuzzEnd::no_progress, fmt::format("did not end within {} s", kMostSeconds)};
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) {
        return {FuzzEnd::no_progress,
                fmt::format("did not end within {} s of processor time",
                            std::chrono::duration<double>(child.processor_time).count())};
    }
    if (WIFSIGNALED(status)) {
        return {FuzzEnd::crashed, fmt::format("SIG{}", ::sigabbrev_np(WTERMSIG(status)))};
    }
    if (got < 1 || WEXITSTATUS(status) != 0) {
        return {FuzzEnd::crashed, fmt::format("exit code {}", WEXITSTATUS(status))};
    }
    told.resize(static_cast<std::size_t>(got));
    return {static_cast<FuzzEnd>(told.front() - '0'), told.substr(1)};
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> seeds_of(const std::string& text) {
    const std::size_t dots = text.find("..");
    const std::string first = text.substr(0, dots);
    const std::string last = dots == std::string::npos ? first : text.substr(dots + 2);
    std::pair<std::uint64_t, std::uint64_t> seeds;
    const auto read = [](const std::string& from, std::uint64_t& value) {
        const auto end = std::from_chars(from.data(), from.data() + from.size(), value);
        return end.ec == std::errc() && end.ptr == from.data() + from.size();
    };
    if (!read(first, seeds.first) || !read(last, seeds.second)) return std::nullopt;
    if (seeds.first > seeds.second) return std::nullopt;
    return seeds;
}

ExitCode exit_code_of(std::map<FuzzEnd, std::uint64_t>& ends) {
    if (ends[FuzzEnd::crashed] > 0) return ExitCode::bug;
    if (ends[FuzzEnd::broken] > 0) return ExitCode::invariant;
    return ends[FuzzEnd::no_progress] > 0 ? ExitCode::deadline : ExitCode::ok;
}

// Shrinks it, saves what is left as a job file, and says how to run that again.
void report_failure(std::uint64_t seed, const FuzzVerdict& verdict, const FuzzOptions& options) {
    const Job job = shrink(fuzz_case(seed), [&](const Job& smaller) {
        return judge_apart(smaller, options.twice).end == verdict.end;
    });
    const FuzzVerdict last = judge_apart(job, options.twice);
    std::string file = fmt::format("{}/seed-{}.toml", options.out, seed);
    std::error_code failed;
    std::filesystem::create_directories(options.out, failed);
    const auto written = write_text(file, to_toml(job));
    if (written.has_error()) {
        fmt::print(stderr, "detente fuzz: {}\n", written.error().text);
        file.clear();
    }
    const FuzzVerdict told{verdict.end, reported(verdict, last)};
    fmt::print("{}\n", failure_line(seed, told, file, options.twice));
    std::fflush(stdout);
}

// What a failure left behind, judged as it was: `detente simulate` would not ask whether every
// batch was finished, nor run it twice.
ExitCode judge_file(const FuzzOptions& options) {
    const auto job = read_job({options.job, {}});
    if (job.has_error()) return static_cast<ExitCode>(report("fuzz", job.error()));
    const FuzzVerdict verdict = judge_apart(*job, options.twice);
    fmt::print("{}: {}{}{}\n", options.job, name_of(verdict.end), verdict.text.empty() ? "" : ": ",
               verdict.text);
    std::map<FuzzEnd, std::uint64_t> ends{{verdict.end, 1}};
    return exit_code_of(ends);
}

}  // namespace

const char* name_of(FuzzEnd end) {
    switch (end) {
        case FuzzEnd::passed:
            return "passed";
        case FuzzEnd::no_progress:
            return "no progress";
        case FuzzEnd::broken:
            return "broken invariant";
        case FuzzEnd::crashed:
            return "crashed";
    }
    return "?";
}

FuzzVerdict judge(const Job& job, const std::string& folder, bool twice) {
    EventTrace trace;
    auto first = run_once(job, folder, twice ? &trace : nullptr);
    if (first.has_error()) return {FuzzEnd::no_progress, first.error().text};
    if (!twice || first->verdict.end != FuzzEnd::passed) return first->verdict;
    EventTrace again(trace);
    const auto second = run_once(job, folder, &again);
    if (second.has_error()) return {FuzzEnd::no_progress, second.error().text};
    if (const auto difference = again.difference()) {
        return {FuzzEnd::broken, "not the same twice: " + *difference};
    }
    if (first->digest != second->digest) {
        return {FuzzEnd::broken,
                fmt::format("not the same twice: equal events, digests {:016x} and {:016x}",
                            first->digest, second->digest)};
    }
    return second->verdict;
}

std::string reported(const FuzzVerdict& first, const FuzzVerdict& again) {
    if (again.end == first.end) return again.text;
    return first.text + " (not again: run once more, it " +
           (again.end == FuzzEnd::passed
                ? "passed)"
                : std::string("was ") + name_of(again.end) + ": " + again.text + ")");
}

std::string failure_line(std::uint64_t seed, const FuzzVerdict& verdict, const std::string& file,
                         bool twice) {
    std::string text = verdict.text;
    std::replace(text.begin(), text.end(), '\n', ' ');
    return fmt::format("seed {}: {}: {}; again: detente fuzz {}{}", seed, name_of(verdict.end),
                       text, file.empty() ? fmt::format("--seeds {}", seed) : "--job " + file,
                       twice ? " --check-determinism" : "");
}

FuzzVerdict judge_apart(const Job& job, bool twice, std::chrono::milliseconds processor_time) {
    const Child child = start(job, twice, processor_time);
    int status = 0;
    while (::waitpid(child.process, &status, 0) < 0 && errno == EINTR) {
    }
    return take(child, status);
}

ExitCode fuzz(const FuzzOptions& options) {
    if (!options.job.empty()) return judge_file(options);
    const auto seeds = seeds_of(options.seeds);
    if (!seeds) {
        fmt::print(stderr,
                   "detente fuzz: --seeds: expected A..B with A at most B, like 1..2000, "
                   "or one number (or --job FILE instead); found '{}'\n",
                   options.seeds);
        return ExitCode::usage;
    }
    std::map<pid_t, std::pair<std::uint64_t, Child>> running;
    std::map<FuzzEnd, std::uint64_t> ends;
    std::vector<std::pair<std::uint64_t, FuzzVerdict>> failures;
    const std::uint64_t count = seeds->second - seeds->first + 1;
    std::uint64_t begun = 0;
    std::uint64_t over = 0;
    while (over < count) {
        while (begun < count && running.size() < options.jobs) {
            const std::uint64_t seed = seeds->first + begun++;
            const Child child = start(fuzz_case(seed), options.twice, kFuzzProcessorTime);
            running[child.process] = {seed, child};
        }
        int status = 0;
        const pid_t ended = ::waitpid(-1, &status, 0);
        const auto found = running.find(ended);
        if (found == running.end()) continue;
        const auto [seed, child] = found->second;
        running.erase(found);
        const FuzzVerdict verdict = take(child, status);
        ++ends[verdict.end];
        if (verdict.end != FuzzEnd::passed) failures.emplace_back(seed, verdict);
        if (options.first_failure && !failures.empty()) break;
        if (++over % 500 == 0 && over < count) {
            fmt::print("{} of {} seeds, {} failed\n", over, count, failures.size());
            std::fflush(stdout);
        }
    }
    for (const auto& [process, one] : running) {
        ::kill(process, SIGKILL);
        int status = 0;
        ::waitpid(process, &status, 0);
        take(one.second, status);
    }
    if (options.first_failure && !failures.empty()) {
        const auto& [seed, verdict] = failures.front();
        fmt::print("{}\n", failure_line(seed, verdict, "", options.twice));
        return exit_code_of(ends);
    }
    constexpr std::size_t kMostReported = 20;
    for (std::size_t i = 0; i < std::min(failures.size(), kMostReported); ++i) {
        report_failure(failures[i].first, failures[i].second, options);
    }
    fmt::print("{} seeds: {} passed, {} broken invariants, {} without progress, {} crashed\n",
               count, ends[FuzzEnd::passed], ends[FuzzEnd::broken], ends[FuzzEnd::no_progress],
               ends[FuzzEnd::crashed]);
    return exit_code_of(ends);
}

}  // namespace detente
