#include "launch/series.h"

#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/temporary_folder.h"

namespace detente {
namespace {

namespace json = boost::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

ClusterView training_view() {
    ClusterView view;
    view.job = "small \"quoted\"";
    view.tasks = {"a", "b"};
    view.stage = Stage::training;
    view.now = Time(seconds(2));
    view.training_began = Time(seconds(2));
    view.samples_planned = 5000;
    ProcessView shard;
    shard.node = node_of(ShardId{0});
    shard.phase = Phase::working;
    shard.last.values = {{"updates.computed", 50}, {"updates.applied", 45}, {"staleness.sum", 90}};
    shard.last.staleness = {0, 0, 45};
    ProcessView worker;
    worker.node = node_of(WorkerId{0});
    worker.phase = Phase::working;
    worker.last.values = {{"steps", 25}, {"samples", 1600}};
    worker.last.losses = {0.5, std::numeric_limits<double>::quiet_NaN()};
    view.processes = {shard, worker};
    return view;
}

std::vector<json::object> objects_of(const std::string& path) {
    std::vector<json::object> lines;
    const std::string text = bytes_of_file(path);
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = text.find('\n', begin);
        REQUIRE(end != std::string::npos);
        lines.push_back(json::parse(text.substr(begin, end - begin)).as_object());
        begin = end + 1;
    }
    return lines;
}

SeriesWriter made(const std::string& path, SeriesOptions options = {}) {
    auto series = SeriesWriter::create(path, options);
    REQUIRE(series.has_value());
    return std::move(*series);
}

TEST_CASE("series: a header, then points with what the view knew, losses that are no number null") {
    const TemporaryFolder folder;
    SeriesWriter series = made(folder / "s", {seconds(1), true});
    REQUIRE(series.note(training_view()).has_value());
    const auto lines = objects_of(folder / "s");
    REQUIRE(lines.size() == 2);
    CHECK(lines[0].at("job").as_string() == "small \"quoted\"");
    CHECK(lines[0].at("virtual").as_bool());
    CHECK(lines[0].at("workers").to_number<int>() == 1);
    CHECK(lines[0].at("samples_planned").to_number<int>() == 5000);
    CHECK(lines[1].at("seconds").to_number<double>() == 2);
    CHECK(lines[1].at("samples").to_number<int>() == 1600);
    CHECK(lines[1].at("updates").at("applied").to_number<int>() == 45);
    CHECK(lines[1].at("staleness").at("mean").to_number<double>() == 2);
    CHECK(lines[1].at("staleness").at("p50").to_number<int>() == 2);
    CHECK(lines[1].at("loss").at(0).to_number<double>() == 0.5);
    CHECK(lines[1].at("loss").at(1).is_null());
}

TEST_CASE("series: a point says where the time of the first workers' steps went") {
    const TemporaryFolder folder;
    SeriesWriter series = made(folder / "s", {seconds(1), false});
    ClusterView view = training_view();
    std::erase_if(view.processes, [](const auto& p) { return p.node.role == Role::worker; });
    for (std::uint32_t i = 0; i < SeriesWriter::kMostWorkers + 3; ++i) {
        ProcessView worker;
        worker.node = node_of(WorkerId{i});
        worker.last.values = {{"step_time.steps", 10.0 * i},
                              {"step_time.compute_ms", 1.5},
                              {"step_time.apply_ms", 0.0004}};
        view.processes.push_back(worker);
    }
    REQUIRE(series.note(view).has_value());
    const auto lines = objects_of(folder / "s");
    const json::array& rows = lines.at(1).at("step_time_us").as_array();
    REQUIRE(rows.size() == SeriesWriter::kMostWorkers);
    CHECK(json::serialize(rows[3]) == "[30,1500,0,0,0,0]");
}

TEST_CASE("series: points come at the interval, scores when there are some, the last one always") {
    const TemporaryFolder folder;
    SeriesWriter series = made(folder / "s", {seconds(1), false});
    ClusterView view = training_view();
    view.training_began.reset();
    REQUIRE(series.note(view).has_value());  // nothing to see yet
    view.training_began = view.now;
    for (int i = 0; i < 25; ++i) {  // 2.0 … 4.4 s
        REQUIRE(series.note(view).has_value());
        view.now += milliseconds(100);
    }
    view.checkpoints.push_back({1, "/c/1", 800, {}});
    REQUIRE(series.note(view).has_value());
    view.checkpoints.back().accuracy = {{"a", 0.25}, {"b", 0.75}};
    REQUIRE(series.note(view).has_value());
    REQUIRE(series.note(view).has_value());  // once
    view.stage = Stage::finished;
    REQUIRE(series.finish(view).has_value());
    std::vector<double> at;
    std::size_t scores = 0;
    for (const json::object& line : objects_of(folder / "s")) {
        if (line.contains("stage")) at.push_back(line.at("seconds").to_number<double>());
        if (!line.contains("accuracy")) continue;
        ++scores;
        CHECK(line.at("checkpoint").to_number<int>() == 1);
        CHECK(line.at("accuracy").at("b").to_number<double>() == 0.75);
    }
    CHECK(scores == 1);
    CHECK(at == std::vector<double>{2, 3, 4, 4.5});
}

TEST_CASE("series: is bounded, and what stays spans the whole run evenly") {
    const TemporaryFolder folder;
    SeriesWriter series = made(folder / "s", {seconds(1), false});
    ClusterView view = training_view();
    const int last = 10 * static_cast<int>(SeriesWriter::kMostLines);
    for (int i = 0; i <= last; ++i) {
        REQUIRE(series.note(view).has_value());
        view.now += seconds(1);
    }
    const auto lines = objects_of(folder / "s");
    CHECK(lines.size() <= SeriesWriter::kMostLines + 1);
    CHECK(lines.size() >= SeriesWriter::kMostLines / 2);
    CHECK(lines[1].at("seconds").to_number<double>() == 2);
    CHECK(lines.back().at("seconds").to_number<double>() > last - 16);
    for (std::size_t i = 2; i < lines.size(); ++i) {
        const double step = lines[i].at("seconds").to_number<double>() -
                            lines[i - 1].at("seconds").to_number<double>();
        REQUIRE(step > 0);
        REQUIRE(step <= 16);
    }
}

TEST_CASE("series: a file that cannot be is named, and a disk that fills is told once") {
    const TemporaryFolder folder;
    const auto nowhere = SeriesWriter::create(folder / "no/such/s", {});
    REQUIRE(nowhere.has_error());
    CHECK(nowhere.error().text.find("no/such/s") != std::string::npos);
    SeriesWriter full = made("/dev/full");
    ClusterView view = training_view();
    CHECK(full.note(view).has_error());
    view.now += seconds(1);
    CHECK(full.note(view).has_value());
    CHECK(full.finish(view).has_value());
}

}  // namespace
}  // namespace detente
