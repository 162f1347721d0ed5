#include "launch/sweep/sweep.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "common/file.h"
#include "launch/job.h"
#include "launch/processes.h"
#include "launch/report/sweep_runs.h"
#include "launch/run_directory.h"

namespace detente {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kWriteInterval = std::chrono::seconds(1);  // of sweep.json, between two cells

// The folder, locked for this sweep as long as it is open.
Result<OpenFile> take_directory(const std::string& directory) {
    std::error_code failed;
    fs::create_directories(fs::path(directory) / "cells", failed);
    if (failed) {
        return fail(ErrorCode::io, fmt::format("cannot make {}: {}; choose another with --out DIR",
                                               directory, failed.message()));
    }
    OpenFile folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder.get() < 0) return io_error("open", directory, errno);
    if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        return fail(ErrorCode::io,
                    fmt::format("another sweep is at work in {}: wait for its end, or choose "
                                "another --out DIR",
                                directory));
    }
    return folder;
}

// What a cell's process said of its end.
std::string first_error(const std::vector<std::string>& lines, const ProcessEnd& end) {
    for (const std::string& line : lines) {
        if (line.starts_with("FAILED: ") || line.starts_with("detente ")) return line;
    }
    return lines.empty() ? end.text() : lines.back();
}

class Sweep {
  public:
    Sweep(SweepRecord record, const SweepOptions& options, std::string directory, bool resumed)
        : record_(std::move(record)),
          options_(options),
          directory_(std::move(directory)),
          resumed_(resumed),
          processes_(loop_, {[this](const std::string& label, const ProcessEnd& end) {
                                 on_end(label, end);
                             },
                             [](const std::string&, const std::string&) {}}),
          signals_(loop_, SIGINT, SIGTERM) {}

    // Marks what is done already. bad_job: a cell that another job file made.
    Result<void> find_done();
    Result<ExitCode> run();

  private:
    void wait_for_signal();
    void start_more();
    Result<void> start(SweepCell& cell);
    void on_end(const std::string& label, const ProcessEnd& end);
    void settle(SweepCell& cell, const ProcessEnd& end);
    void say(const SweepCell& cell, const std::string& what);
    void write_record(bool at_once);
    ExitCode exit_code() const;

    SweepRecord record_;
    const SweepOptions& options_;
    std::string directory_;
    bool resumed_;
    boost::asio::io_context loop_{1};
    Processes processes_;
    boost::asio::signal_set signals_;
    std::size_t next_ = 0;
    std::size_t running_ = 0;
    std::size_t settled_ = 0;
    int signal_ = 0;
    std::optional<Error> broken_;  // what keeps the sweep itself from going on
    std::vector<Clock::time_point> began_;
    Clock::time_point written_{};
};

Result<void> Sweep::find_done() {
    for (SweepCell& cell : record_.cells) {
        const RunDirectory run{cell_dir(directory_, cell)};
        const auto before = read_run(run.path);
        if (before.has_error() || !before->ended || before->failed) continue;
        const auto job = job_of(options_.wanted, cell, program_folder());
        if (job.has_error()) return job.error();
        if (before->job_text != to_toml(*job)) {
            return fail(ErrorCode::bad_job,
                        fmt::format("{} was made from another job file, or with other --set: "
                                    "choose another --out, or delete that folder",
                                    run.path));
        }
        cell.state = CellState::done;
        ++settled_;
    }
    return {};
}

Result<ExitCode> Sweep::run() {
    fmt::print(
        "sweep     {}: {} cells, {} done already, {} at a time, by `detente {}`\nfolder    "
        "{}\n",
        record_.job, record_.cells.size(), settled_, options_.at_once, record_.verb, directory_);
    std::fflush(stdout);
    began_.resize(record_.cells.size());
    write_record(true);
    wait_for_signal();
    start_more();
    if (running_ > 0) loop_.run();
    write_record(true);
    if (broken_) return *broken_;
    return exit_code();
}

void Sweep::wait_for_signal() {
    signals_.async_wait([this](const boost::system::error_code& cancelled, int number) {
        if (cancelled) return;
        if (signal_ != 0) {
            processes_.kill_all();
        } else {
            signal_ = number;
            fmt::print("stopping  {} running cells end in order; again ends them at once\n",
                       running_);
            for (const SweepCell& cell : record_.cells) processes_.signal(cell.name, SIGTERM);
        }
        wait_for_signal();
    });
}

void Sweep::start_more() {
    for (; running_ < options_.at_once && next_ < record_.cells.size(); ++next_) {
        SweepCell& cell = record_.cells[next_];
        if (signal_ != 0 || broken_ || cell.state == CellState::done) continue;
        if (auto started = start(cell); started.has_error()) {
            broken_ = started.error();
            continue;
        }
        began_[next_] = Clock::now();
        ++running_;
    }
    if (running_ == 0) loop_.stop();
}

Result<void> Sweep::start(SweepCell& cell) {
    const std::string run_dir = cell_dir(directory_, cell);
    std::error_code ignored;
    if (resumed_) {  // what a failed or interrupted call left of it
        fs::remove_all(run_dir, ignored);
        fs::remove(cell_log(directory_, cell), ignored);
    }
    cell.state = CellState::waiting;
    cell.error.clear();
    const auto pid = processes_.start(
        {cell.name, arguments_of(options_.wanted, cell, run_dir), cell_log(directory_, cell)});
    if (pid.has_error()) return pid.error();
    return {};
}

void Sweep::on_end(const std::string& label, const ProcessEnd& end) {
    --running_;
    for (SweepCell& cell : record_.cells) {
        if (cell.name == label) settle(cell, end);
    }
    write_record(false);
    start_more();
}

void Sweep::settle(SweepCell& cell, const ProcessEnd& end) {
    cell.exit_code = end.signal != 0 ? 128 + end.signal : end.exit_code;
    const auto run = read_run(cell_dir(directory_, cell));
    if (end.clean() && run.has_value() && run->ended && !run->failed) {
        cell.state = CellState::done;
    } else if (signal_ != 0) {
        say(cell, "stopped");
        return;  // neither done nor failed: the next call runs it again
    } else {
        cell.state = CellState::failed;
        cell.error = run.has_value() && run->failed
                         ? run->error
                         : first_error(processes_.last_lines(cell.name), end);
    }
    ++settled_;
    if (cell.state == CellState::done) return say(cell, "done");
    say(cell, fmt::format("FAILED ({}): {}\n          its log: {}", end.text(), cell.error,
                          cell_log(directory_, cell)));
}

void Sweep::say(const SweepCell& cell, const std::string& what) {
    const auto index = static_cast<std::size_t>(&cell - record_.cells.data());
    const double took_s = std::chrono::duration<double>(Clock::now() - began_[index]).count();
    fmt::print("[{}/{}]  {}, seed {}: {} after {:.1f} s\n", settled_, record_.cells.size(),
               title_of(cell), cell.seed, what, took_s);
    std::fflush(stdout);
}

void Sweep::write_record(bool at_once) {
    if (!at_once && Clock::now() - written_ < kWriteInterval) return;
    written_ = Clock::now();
    if (auto done = write_text(sweep_file(directory_), to_json(record_)); done.has_error()) {
        broken_ = done.error();
    }
}

ExitCode Sweep::exit_code() const {
    if (signal_ != 0) return signal_ == SIGINT ? ExitCode::interrupted : ExitCode::terminated;
    for (const SweepCell& cell : record_.cells) {
        if (cell.state != CellState::failed) continue;
        // A process that a signal ended is one that was lost; the others say why themselves.
        return cell.exit_code == 0 || cell.exit_code > 128 ? ExitCode::process_lost
                                                           : static_cast<ExitCode>(cell.exit_code);
    }
    return ExitCode::ok;
}

std::size_t columns_of(const std::string& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U;
    }));
}

void print_table(const SweepRuns& sweep) {
    const SweepTable table = table_of(sweep);
    std::vector<std::vector<std::string>> rows = {table.header};
    rows.insert(rows.end(), table.rows.begin(), table.rows.end());
    std::vector<std::size_t> widths(table.header.size(), 0);
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            widths[i] = std::max(widths[i], columns_of(row[i]));
        }
    }
    fmt::print("\n");
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            const std::string gap(widths[i] - columns_of(row[i]), ' ');
            fmt::print("  {}", i == 0 ? row[i] + gap : gap + row[i]);
        }
        fmt::print("\n");
    }
}

}  // namespace

std::vector<std::string> arguments_of(const GridWanted& wanted, const SweepCell& cell,
                                      const std::string& run_dir) {
    std::vector<std::string> arguments = {wanted.verb, wanted.job_file, "--out", run_dir};
    for (const std::string& setting : overrides_of(wanted, cell)) {
        arguments.insert(arguments.end(), {"--set", setting});
    }
    // The simulator's own draws, of delays and faults, follow its seed.
    if (wanted.verb == "simulate") {
        arguments.insert(arguments.end(), {"--seed", std::to_string(cell.seed)});
    }
    return arguments;
}

Result<ExitCode> run_sweep(const SweepOptions& options) {
    auto record = plan_sweep(options.wanted, program_folder());
    if (record.has_error()) return record.error();
    std::error_code ignored;
    const std::string directory =
        fs::absolute(options.directory.empty() ? fs::path("sweeps") / record->job
                                               : fs::path(options.directory),
                     ignored)
            .lexically_normal()
            .string();
    const bool resumed = fs::exists(sweep_file(directory), ignored);
    const auto held = take_directory(directory);
    if (held.has_error()) return held.error();
    Sweep sweep(std::move(*record), options, directory, resumed);
    if (auto found = sweep.find_done(); found.has_error()) return found.error();
    auto code = sweep.run();
    const auto runs = read_sweep_runs(directory);
    if (runs.has_value()) print_table(*runs);
    fmt::print("\n  to look at it: detente report {}\n", directory);
    return code;
}

}  // namespace detente
