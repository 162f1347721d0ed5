// Grids, what a sweep remembers, and the report of one.
#include "launch/sweep/sweep.h"

#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "launch/report/numbers.h"
#include "launch/report/page.h"
#include "tests/launch/made_run.h"
#include "tests/launch/markup.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

namespace json = boost::json;

// A job file that can be planned: its library is there.
struct JobHere {
    TemporaryFolder folder;
    JobHere() {
        write_file(folder / "libm.so", "");
        write_file(folder / "job.toml",
                   "name = \"swept\"\nseed = 7\nworkers = 2\n[model]\nlibrary = \"libm.so\"\n");
    }
    GridWanted wanted(std::vector<std::string> grid, std::uint32_t seeds = 1) const {
        return {folder / "job.toml", {}, std::move(grid), seeds, "run"};
    }
    std::string refusal(std::vector<std::string> grid, std::uint32_t seeds = 1) const {
        const auto planned = plan_sweep(wanted(std::move(grid), seeds), "/");
        if (planned) return "not refused";
        CHECK(planned.error().code == ErrorCode::bad_job);
        return planned.error().text;
    }
};

TEST_CASE("sweep: a grid gives every combination, seeds within, under names of their own") {
    const JobHere here;
    const auto record =
        plan_sweep(here.wanted({"staleness.policy=[\"async\", 'bsp']", "workers=[1,2,4]"}, 2), "/");
    INFO((record ? "" : record.error().text));
    REQUIRE(record.has_value());
    REQUIRE(record->cells.size() == 12);
    std::set<std::string> names;
    for (const SweepCell& cell : record->cells) names.insert(cell.name);
    CHECK(names.size() == 12);
    const SweepCell& second = record->cells[1];
    CHECK(second.name == "staleness.policy=async,workers=1,seed=8");
    CHECK(title_of(second) == "policy async, workers 1");
    CHECK(title_of(record->cells[11]) == "policy bsp, workers 4");
    CHECK(arguments_of(here.wanted({}), second, "/d/c") ==
          std::vector<std::string>{"run", here.folder / "job.toml", "--out", "/d/c", "--set",
                                   "staleness.policy=\"async\"", "--set", "workers=1", "--set",
                                   "seed=8"});
    const auto job = job_of(here.wanted({}), record->cells[11], "/");
    REQUIRE(job.has_value());
    CHECK(job->policy.name == "bsp");
    CHECK(job->workers == 4);
    CHECK(job->seed == 8);
}

TEST_CASE("sweep: numbers of a grid are written as a person writes them") {
    const JobHere here;
    const auto record = plan_sweep(here.wanted({"rule.learning_rate=[0.1, 1e-9, 2.0]"}), "/");
    INFO((record ? "" : record.error().text));
    REQUIRE(record.has_value());
    CHECK(title_of(record->cells[0]) == "learning_rate 0.1");
    CHECK(title_of(record->cells[1]) == "learning_rate 1e-09");
    CHECK(title_of(record->cells[2]) == "learning_rate 2.0");
    const auto job = job_of(here.wanted({}), record->cells[1], "/");
    REQUIRE(job.has_value());
    CHECK(job->rule.learning_rate == 1e-9);
}

TEST_CASE("sweep: names of cells tell values apart that look alike as folders") {
    const JobHere here;
    const auto record =
        plan_sweep(here.wanted({"data.dir=[\"a/b\",\"ab\",\"a b\",\"../a\"]"}), "/");
    REQUIRE(record.has_value());
    std::set<std::string> names;
    for (const SweepCell& cell : record->cells) {
        CHECK(cell.name.find('/') == std::string::npos);
        names.insert(cell.name);
    }
    CHECK(names.size() == 4);
    const std::string long_value(600, 'x');
    const auto longer = plan_sweep(here.wanted({"data.dir=[\"" + long_value + "\"]"}), "/");
    REQUIRE(longer.has_value());
    CHECK(longer->cells[0].name.size() < 200);
}

TEST_CASE("sweep: grids that cannot be are refused before anything starts, the nearest key named") {
    const JobHere here;
    CHECK_THAT(here.refusal({"staleness.polcy=[\"async\"]"}),
               Catch::Contains("--grid staleness.polcy=") &&
                   Catch::Contains("did you mean 'staleness.policy'?"));
    CHECK_THAT(here.refusal({"workers=[1,2]", "staleness.policy=[\"async\",\"bpp\"]"}),
               Catch::Contains("did you mean 'bsp'?"));
    CHECK_THAT(here.refusal({"workers=[1,0]"}), Catch::Contains("--grid workers=0: workers"));
    CHECK_THAT(here.refusal({"workers"}), Catch::Contains("there is no KEY="));
    CHECK_THAT(here.refusal({"workers=4"}), Catch::Contains("no list in brackets"));
    CHECK_THAT(here.refusal({"workers=[1,"}), Catch::Contains("not TOML"));
    CHECK_THAT(here.refusal({"workers=[]"}), Catch::Contains("the list is empty"));
    CHECK_THAT(here.refusal({"workers=[1,1]"}), Catch::Contains("1 is there twice"));
    CHECK_THAT(here.refusal({"workers=[1]", "workers=[2]"}), Catch::Contains("is there twice"));
    CHECK_THAT(here.refusal({"seed=[1]"}), Catch::Contains("--seeds"));
    CHECK_THAT(here.refusal({"workers=[1,2,3,4,5]"}, 1000), Catch::Contains("4096"));
    // What does not go together in one of the cells.
    CHECK_THAT(here.refusal({"worker.pull_ahead=[0,1]", "staleness.policy=[\"bsp\"]"}),
               Catch::Contains("worker.pull_ahead") && Catch::Contains("must be 0"));
}

SweepRecord small_record() {
    return {"j<b>",
            "run",
            {{"workers", {"1", "2"}}},
            {{"a", {{"workers", "1"}}, 1, CellState::done, 0, ""},
             {"b", {{"workers", "1"}}, 2, CellState::done, 0, ""},
             {"c", {{"workers", "2"}}, 1, CellState::failed, 4, "<script>lost</script>"},
             {"d", {{"workers", "2"}}, 2, CellState::waiting, 0, ""}}};
}

TEST_CASE("sweep: sweep.json is read back as it was written") {
    const TemporaryFolder folder;
    const SweepRecord record = small_record();
    write_file(sweep_file(folder.path()), to_json(record));
    const auto read = read_sweep(folder.path());
    REQUIRE(read.has_value());
    CHECK(to_json(*read) == to_json(record));
    CHECK(read->cells[2].error == "<script>lost</script>");
}

TEST_CASE("sweep: a sweep.json that is none of ours is refused by member") {
    const std::string good = to_json(small_record());
    const auto with = [&good](const std::string& what, const std::string& instead) {
        std::string text = good;
        const std::size_t at = text.find(what);
        REQUIRE(at != std::string::npos);
        return text.replace(at, what.size(), instead);
    };
    const std::vector<std::pair<std::string, std::string>> cases = {
        {good.substr(0, good.size() / 2), "not JSON"},
        {with("\"sweep\":1", "\"sweep\":2"), "'sweep' must be 1"},
        {with("\"name\":\"a\"", "\"name\":\"../a\""), "'name' must be the name of a folder"},
        {with("\"name\":\"a\"", "\"name\":\"\""), "'name' must be the name of a folder"},
        {with("\"state\":\"done\"", "\"state\":\"odd\""), "'state'"},
        {with("\"seed\":1", "\"seed\":-1"), "'seed'"},
    };
    for (const auto& [text, why] : cases) {
        CAPTURE(text);
        const TemporaryFolder folder;
        write_file(sweep_file(folder.path()), text);
        const auto read = read_sweep(folder.path());
        REQUIRE(read.has_error());
        CHECK_THAT(read.error().text, Catch::Contains("sweep.json") && Catch::Contains(why));
    }
}

TEST_CASE("report: a sweep shows the spread over seeds, and names what failed or is missing") {
    const TemporaryFolder folder;
    write_file(sweep_file(folder.path()), to_json(small_record()));
    test::write_run(folder / "cells/a", 0.75);
    test::write_run(folder / "cells/b", 0.85);
    const auto sweep = read_sweep_runs(folder.path());
    REQUIRE(sweep.has_value());
    REQUIRE(sweep->groups.size() == 2);
    CHECK(sweep->groups[0].runs.size() == 2);
    CHECK(sweep->groups[1].runs.empty());

    const test::Markup markup = test::read_markup(sweep_page(*sweep));
    REQUIRE(markup.error == "");
    CHECK(markup.count("script") == 0);
    CHECK(markup.texts_of("h1").at(0) == "j<b>: a sweep");
    const auto cells = markup.texts_of("td");
    CHECK(std::count(cells.begin(), cells.end(), "80.00 (75.00–85.00)") == 1);
    CHECK(std::count(cells.begin(), cells.end(), "2 of 2") == 1);
    CHECK(std::count(cells.begin(), cells.end(), "0 of 2") == 1);
    const auto failures = markup.texts_of("li");
    REQUIRE(failures.size() == 2);
    CHECK(failures[0] == "workers 2, seed 1: failed: <script>lost</script>");
    CHECK(failures[1] == "workers 2, seed 2: waiting");

    const json::value numbers = json::parse(numbers_as_json(named_runs(*sweep)));
    REQUIRE(numbers.at("runs").as_array().size() == 2);
    CHECK(numbers.at("runs").at(1).at("name").as_string() == "b");
    CHECK(numbers.at("runs").at(1).at("seed").to_number<int>() == 2);
    CHECK(numbers.at("runs").at(1).at("settings").at("workers").as_string() == "1");
    CHECK(numbers.at("runs").at(1).at("accuracy").at(test::kHostile).to_number<double>() == 0.85);
}

TEST_CASE("report: a cell whose run is gone or altered is a remark, not the end of the report") {
    const TemporaryFolder folder;
    write_file(sweep_file(folder.path()), to_json(small_record()));
    test::write_run(folder / "cells/a");
    test::write_run(folder / "cells/b");
    write_file(folder / "cells/b/summary.json", "{");
    const auto sweep = read_sweep_runs(folder.path());
    REQUIRE(sweep.has_value());
    CHECK(sweep->groups[0].runs.size() == 1);
    REQUIRE(sweep->remarks.size() == 1);
    CHECK_THAT(sweep->remarks[0], Catch::Contains("b is left out") && Catch::Contains("not JSON"));
}

TEST_CASE("report: when a run first scored an accuracy is asked of its evaluations") {
    const TemporaryFolder folder;
    write_file(sweep_file(folder.path()), to_json(small_record()));
    test::write_run(folder / "cells/a");
    test::write_run(folder / "cells/b");
    auto sweep = read_sweep_runs(folder.path());
    REQUIRE(sweep.has_value());
    std::vector<RunRecord>& runs = sweep->groups[0].runs;
    runs[0].scores = {{1, 10, 1, {{"x", 0.25}, {"y", 0.5}}}, {2, 20, 2, {{"x", 0.5}, {"y", 0.75}}}};
    runs[1].scores = {{3, 10, 1, {{"x", 0.25}, {"y", 0.5}}}};
    CHECK(seconds_to_reach(runs[0], 0.3) == 1);
    CHECK(seconds_to_reach(runs[0], 0.625) == 2);
    CHECK(std::isnan(seconds_to_reach(runs[0], 0.7)));
    sweep->reach = 0.6;
    const SweepTable table = table_of(*sweep);
    CHECK(table.header.back() == "s to 60 %");
    CHECK(table.rows[0].back() == "2.00, 1 of 2 never");
    const json::value numbers = json::parse(numbers_as_json(named_runs(*sweep)));
    CHECK(numbers.at("runs").at(0).at("reached_s").to_number<double>() == 2);
    CHECK(numbers.at("runs").at(1).at("reached_s").is_null());
}

TEST_CASE("report: a mean curve is the mean, the lowest and the highest at each place") {
    const MeanCurve curve = mean_curve({{{0, 0}, {10, 10}}, {{0, 2}, {5, 4}, {20, 10}}});
    REQUIRE_FALSE(curve.mean.empty());
    for (std::size_t i = 0; i < curve.mean.size(); ++i) {
        const double x = curve.mean[i].x;
        REQUIRE(x <= 10);  // where the shorter run ends
        const double other = x <= 5 ? 2 + x * 0.4 : 4 + (x - 5) * 0.4;
        CHECK(curve.mean[i].y == Approx((x + other) / 2));
        CHECK(curve.low[i].y == Approx(std::min(x, other)));
        CHECK(curve.high[i].y == Approx(std::max(x, other)));
    }
    CHECK(mean_curve({}).mean.empty());
    CHECK(mean_curve({{}, {}}).mean.empty());
}

}  // namespace
}  // namespace detente
