// Sweeps over real runs of the tiny model, and reports of what they left.
#include <signal.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "launch/exit_code.h"
#include "launch/sweep/sweep_record.h"
#include "tests/launch/markup.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

std::string sweep_dir(const TinyRun& run) { return run.folder() / "sweep"; }

std::vector<std::string> arguments(const TinyRun& run, std::vector<std::string> more) {
    std::vector<std::string> all = {"sweep", run.job_file(), "--with",
                                    "run",   "--out",        sweep_dir(run)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

SweepRecord record_of(const TinyRun& run) {
    const auto record = read_sweep(sweep_dir(run));
    INFO((record ? "" : record.error().text));
    REQUIRE(record.has_value());
    return *record;
}

TEST_CASE("sweep: runs every cell, is not repeated, and reports in one page") {
    const TinyRun run;
    const auto grid = [](const std::string& policies) {
        return std::vector<std::string>{
            "--grid", "staleness.policy=" + policies, "--seeds", "2", "--jobs", "2"};
    };
    Launched first(run.folder(), arguments(run, grid("[\"async\",\"bsp\"]")));
    REQUIRE(first.wait(seconds(60)) == 0);
    const SweepRecord record = record_of(run);
    REQUIRE(record.cells.size() == 4);
    std::vector<std::filesystem::file_time_type> written;
    for (const SweepCell& cell : record.cells) {
        CHECK(cell.state == CellState::done);
        const std::string summary = cell_dir(sweep_dir(run), cell) + "/summary.json";
        REQUIRE(std::filesystem::exists(summary));
        written.push_back(std::filesystem::last_write_time(summary));
    }
    CHECK_THAT(first.output(), Catch::Contains("policy async") && Catch::Contains("2 of 2"));

    // A larger grid keeps what is there.
    Launched again(run.folder(), arguments(run, grid("[\"bsp\",\"inverse\",\"async\"]")));
    REQUIRE(again.wait(seconds(60)) == 0);
    CHECK_THAT(again.output(), Catch::Contains("6 cells, 4 done already"));
    CHECK(record_of(run).cells.size() == 6);
    for (std::size_t i = 0; i < written.size(); ++i) {
        const std::string dir = cell_dir(sweep_dir(run), record.cells[i]);
        CHECK(std::filesystem::last_write_time(dir + "/summary.json") == written[i]);
    }
    Launched reported(run.folder(), {"report", sweep_dir(run)});
    REQUIRE(reported.wait(seconds(20)) == 0);
    const Markup markup = read_markup(bytes_of_file(sweep_dir(run) + "/report.html"));
    CHECK(markup.error == "");
    CHECK(markup.count("svg") > 5);

    // Another job under the same names is not taken for the one that ran.
    Launched other(run.folder(), arguments(run, {"--set", "data.epochs=2", "--grid",
                                                 "staleness.policy=[\"async\",\"bsp\"]"}));
    CHECK(other.wait(seconds(20)) == value_of(ExitCode::usage));
    CHECK_THAT(other.output(), Catch::Contains("made from another job file"));
}

TEST_CASE("sweep: a cell that fails is named with its error, and the others run") {
    const TinyRun run;
    Launched sweep(run.folder(), arguments(run, {"--set", "on_loss.worker=stop", "--grid",
                                                 "model.options.crash_at=[20,0]"}));
    CHECK(sweep.wait(seconds(60)) == value_of(ExitCode::process_lost));
    const SweepRecord record = record_of(run);
    REQUIRE(record.cells.size() == 2);
    CHECK(record.cells[0].state == CellState::failed);
    CHECK(record.cells[0].exit_code == value_of(ExitCode::process_lost));
    CHECK_THAT(record.cells[0].error, Catch::Contains("worker:"));
    CHECK(record.cells[1].state == CellState::done);
    CHECK_THAT(sweep.output(), Catch::Contains("crash_at 20, seed 1: FAILED") &&
                                   Catch::Contains(record.cells[0].error));
}

TEST_CASE("sweep: SIGTERM ends its cells in order, and the next call goes on from there") {
    const TinyRun run("step_ms = 10");
    const std::vector<std::string> grid = {"--grid", "data.epochs=[1,2]"};
    {
        Launched sweep(run.folder(), arguments(run, grid));
        REQUIRE(eventually(seconds(20), [&] {
            return std::filesystem::exists(sweep_dir(run) + "/cells/data.epochs=1,seed=1/job.toml");
        }));
        sweep.signal(SIGTERM);
        CHECK(sweep.wait(seconds(20)) == value_of(ExitCode::terminated));
    }
    CHECK(record_of(run).cells[1].state == CellState::waiting);
    Launched again(run.folder(), arguments(run, grid));
    CHECK(again.wait(seconds(60)) == 0);
    for (const SweepCell& cell : record_of(run).cells) CHECK(cell.state == CellState::done);
}

// Boost.JSON 1.81 reads one number in ten to its last bit but one. The report has read the summary
// and the test reads the report, so the summary goes the same way: then both are the same number.
boost::json::value as_reported(const boost::json::value& value) {
    return boost::json::parse(boost::json::serialize(value));
}

TEST_CASE("report: of a real run, its numbers equal summary.json's, with trace and CSV") {
    const TinyRun run;
    Launched trained(run.folder(), run.arguments());
    REQUIRE(trained.wait(seconds(30)) == 0);
    Launched reported(run.folder(), {"report", run.run_dir(), "--out", run.folder() / "r.html",
                                     "--json", run.folder() / "r.json", "--csv",
                                     run.folder() / "r.csv", "--trace", run.folder() / "t.json"});
    REQUIRE(reported.wait(seconds(20)) == 0);
    CHECK(read_markup(bytes_of_file(run.folder() / "r.html")).error == "");
    const boost::json::value numbers =
        boost::json::parse(bytes_of_file(run.folder() / "r.json")).at("runs").at(0);
    const boost::json::object summary = run.summary();
    for (const char* key : {"updates", "staleness", "conflict", "workers", "steps", "samples"}) {
        CAPTURE(key);
        CHECK(numbers.at(key) == as_reported(summary.at(key)));
    }
    const auto& last = numbers.at("series").as_array().back();
    CHECK(last.at("applied") == summary.at("updates").at("applied"));
    const boost::json::value trace = boost::json::parse(bytes_of_file(run.folder() / "t.json"));
    CHECK(trace.at("traceEvents").as_array().size() > 100);
    CHECK(bytes_of_file(run.folder() / "r.csv").find("updates,applied,,,") != std::string::npos);
    Launched nowhere(run.folder(), {"report", run.folder() / "no"});
    CHECK(nowhere.wait(seconds(20)) == value_of(ExitCode::io));
}

}  // namespace
}  // namespace detente::test
