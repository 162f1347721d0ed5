// Reports of runs: made by the writers of real runs, and of folders that no run of ours left.
#include <boost/json.hpp>
#include <catch2/catch.hpp>

#include "launch/report/numbers.h"
#include "launch/report/page.h"
#include "launch/run_directory.h"
#include "tests/launch/made_run.h"
#include "tests/launch/markup.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

namespace json = boost::json;
using test::kHostile;
using test::write_run;

RunRecord run_in(const std::string& path) {
    const auto run = read_run(path);
    INFO((run ? "" : run.error().text));
    REQUIRE(run.has_value());
    return *run;
}

Timeline timeline_in(const std::string& path) {
    const auto timeline = read_timeline(RunDirectory{path}.ledger_dir());
    INFO((timeline ? "" : timeline.error().text));
    REQUIRE(timeline.has_value());
    return *timeline;
}

bool any_contains(const std::vector<std::string>& texts, const std::string& part) {
    for (const std::string& text : texts) {
        if (text.find(part) != std::string::npos) return true;
    }
    return false;
}

TEST_CASE("report: one page, well-formed, that fetches and runs nothing, and shows every part") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const std::string page = run_page(run_in(folder / "run"), timeline_in(folder / "run"));
    const test::Markup markup = test::read_markup(page);
    REQUIRE(markup.error == "");
    CHECK(markup.count("script") == 0);
    CHECK(markup.count("link") == 0);
    CHECK(markup.count("img") == 0);
    for (const auto& element : markup.elements) {
        for (const auto& [key, value] : element.attributes) {
            CAPTURE(element.name, key, value);
            CHECK_FALSE(key.starts_with("on"));
            CHECK(key != "href");
            CHECK(key != "src");
        }
    }
    CHECK(page.find("url(") == std::string::npos);
    const std::vector<std::string> wanted = {"Loss",
                                             "Test accuracy",
                                             "Staleness",
                                             "What became of the updates",
                                             "Do the tasks agree?",
                                             "Where a step's time goes",
                                             "Who did what when"};
    const auto headings = markup.texts_of("h2");
    for (const std::string& heading : wanted) {
        CAPTURE(heading);
        CHECK(any_contains(headings, heading));
    }
    // Loss twice, staleness, outcomes and waste, cosines, step times twice, timeline twice.
    CHECK(markup.count("svg") == 10);
    CHECK(markup.count("figcaption") == 10);
    for (const std::string title : {"seconds since the run began", "updates of one block, applied",
                                    "training loss, smoothed"}) {
        CHECK(any_contains(markup.texts_of("text"), title));
    }
}

TEST_CASE("report: names from files are text, wherever they are shown") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const std::string page = run_page(run_in(folder / "run"), timeline_in(folder / "run"));
    CHECK(page.find("<script") == std::string::npos);
    const test::Markup markup = test::read_markup(page);
    CHECK(markup.texts_of("h1") == std::vector<std::string>{kHostile});
    CHECK(any_contains(markup.texts_of("td"), kHostile));     // accuracy
    CHECK(any_contains(markup.texts_of("text"), kHostile));   // curves, cosines
    CHECK(any_contains(markup.texts_of("pre"), "<script>"));  // job file
    CHECK(escaped("a\x01\xff\xc0\x80z\xed\xa0\x80") ==
          "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    CHECK(escaped("Détente … 😀") == "Détente … 😀");
}

TEST_CASE("report: long names are cut between characters, and ticks are round numbers") {
    CHECK(shortened("abcdef", 6) == "abcdef");
    CHECK(shortened("abcdefg", 6) == "abcde…");
    CHECK(shortened("äöüßéè", 6) == "äöüßéè");
    CHECK(shortened("äöüßéèx", 6) == "äöüßé…");
    CHECK(ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
    CHECK(ticks(0.5, 20, 5, true) == std::vector<double>{0.5, 1, 2, 5, 10, 20});
    CHECK(ticks(3, 3, 5) == std::vector<double>{3});
    CHECK(ticks(1e300, 1.0000001e300, 5).size() < 20);
    CHECK(ticks(1, 1 + 1e-15, 5) == std::vector<double>{1});
    CHECK(ticks(-1e308, 1e308, 5) == std::vector<double>{-1e308});
    CHECK(short_number(1500) == "1.5 k");
    CHECK(short_number(0) == "0");
}

TEST_CASE("report: its numbers are those of summary.json, as JSON and on the page") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const RunRecord run = run_in(folder / "run");
    const json::object summary =
        json::parse(bytes_of_file(RunDirectory{folder / "run"}.summary_file())).as_object();
    const std::vector<NamedRun> named = {{run.job, {}, std::nullopt, &run}};
    const json::object numbers = json::parse(numbers_as_json(named)).at("runs").at(0).as_object();
    CHECK(numbers.at("updates") == summary.at("updates"));
    CHECK(numbers.at("staleness") == summary.at("staleness"));
    CHECK(numbers.at("conflict") == summary.at("conflict"));
    CHECK(numbers.at("workers") == summary.at("workers"));
    for (const char* key :
         {"steps", "samples", "wall_s", "training_s", "samples_per_s", "failed"}) {
        CAPTURE(key);
        CHECK(numbers.at(key) == summary.at(key));
    }
    CHECK(numbers.at("accuracy").at(kHostile) == summary.at("tasks").at(kHostile).at("accuracy"));
    REQUIRE(numbers.at("series").as_array().size() == 7);
    const json::object& last = numbers.at("series").as_array().back().as_object();
    CHECK(last.at("applied") == summary.at("updates").at("applied"));
    CHECK(last.at("loss").at("b").to_number<double>() == Approx(2.0 / 7));
    CHECK(numbers.at("scores").at(0).at("accuracy").at("b").to_number<double>() == 0.5);

    const auto cells = test::read_markup(run_page(run, {})).texts_of("td");
    CHECK(any_contains(cells, "75.00 %"));
    const auto captions = test::read_markup(run_page(run, {})).texts_of("figcaption");
    CHECK(any_contains(captions,
                       "Of 700 computed updates of one block 693 were applied; 7 were "
                       "wasted: 4 rejected, 0 cancelled, 3 lost."));
}

TEST_CASE("report: what staleness did to gradients is shown where it was measured") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    CHECK(run_in(folder / "run").gaps.empty());
    write_file(RunDirectory{folder / "run"}.gaps_file(),
               R"({"gaps":[{"staleness":0,"gradients":9,"gap":0,"cosine":1},)"
               R"({"staleness":2,"gradients":8,"gap":0.25,"cosine":0.75}]})");
    const RunRecord run = run_in(folder / "run");
    REQUIRE(run.gaps.size() == 2);
    const test::Markup markup = test::read_markup(run_page(run, {}));
    REQUIRE(markup.error == "");
    CHECK(any_contains(markup.texts_of("td"), "0.7500"));
    CHECK(any_contains(markup.texts_of("figcaption"), "Cosine between each gradient"));
    const json::value numbers = json::parse(numbers_as_json({{"a", {}, std::nullopt, &run}}));
    CHECK(numbers.at("runs").at(0).at("gaps").at(1).at("gap").to_number<double>() == 0.25);
    write_file(RunDirectory{folder / "run"}.gaps_file(), R"({"gaps":[{"staleness":-1}]})");
    const auto wrong = read_run(folder / "run");
    REQUIRE(wrong.has_error());
    CHECK_THAT(wrong.error().text,
               Catch::Contains("staleness_gaps.json") && Catch::Contains("staleness"));
}

// Conflicts of write_run()'s two tasks over two seconds, as workers' ledgers would have them.
ConflictHistory history_of(const std::string& method) {
    using Series = ConflictHistory::Series;
    ConflictHistory history;
    history.tasks = {kHostile, "b"};
    history.pairs = {"a / b"};
    history.over_time = {Series{{1, -0.25}, {2, 0.5}}};
    history.norms = {Series{{1, 4}, {2, 3}}, Series{{1, 1}, {2, 1}}};
    history.in_conflict = Series{{1, 0.75}, {2, 0}};
    history.method = method;
    history.weighs = weighs(method);
    history.weight_groups = 1;
    history.weights = {Series{{1, 1}, {2, 0.5}}, Series{{1, 1}, {2, 1.5}}};
    return history;
}

TEST_CASE("report: weights are said to multiply what they multiply") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const RunRecord run = run_in(folder / "run");
    const auto captions = [&run](const std::string& method) {
        const test::Markup markup = test::read_markup(run_page(run, {}, history_of(method)));
        REQUIRE(markup.error == "");
        return markup.texts_of("figcaption");
    };
    CHECK(any_contains(captions("pcgrad"), "multiplied each task's gradient by"));
    CHECK_FALSE(any_contains(captions("db_mtl"), "multiplied each task's gradient by"));
    CHECK(any_contains(captions("db_mtl"), "What db_mtl multiplied its moving average of each"));
    CHECK_FALSE(any_contains(captions("pcgrad"), "groups of conflict.scope"));
    ConflictHistory groups = history_of("pcgrad");
    groups.weight_groups = 3;
    const test::Markup by_group = test::read_markup(run_page(run, {}, groups));
    CHECK(any_contains(by_group.texts_of("figcaption"), "Mean of the 3 groups of conflict.scope"));
    ConflictHistory none = history_of("graddrop");
    none.weights.clear();
    const test::Markup page = test::read_markup(run_page(run, {}, none));
    CHECK(any_contains(page.texts_of("p"), "graddrop decides coordinate by coordinate"));
}

TEST_CASE("report: norms and the share of steps in conflict are drawn over time") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const RunRecord run = run_in(folder / "run");
    REQUIRE(run.by_task.size() == 2);
    CHECK(run.by_task[1].task == "b");
    CHECK(run.by_task[1].norm_mean == Approx(3));
    CHECK(*run.by_task[1].weight_mean == Approx(1.25));
    const test::Markup markup = test::read_markup(run_page(run, {}, history_of("pcgrad")));
    REQUIRE(markup.error == "");
    const auto captions = markup.texts_of("figcaption");
    CHECK(any_contains(captions, "Share of the steps in which some pair of tasks"));
    CHECK(any_contains(captions, "Mean length of each task's gradient"));
    CHECK(any_contains(markup.texts_of("text"), "steps in conflict, %"));
    CHECK(any_contains(markup.texts_of("td"), "1.2500"));  // the mean weight
}

TEST_CASE("report: why there is nothing by layer is on the page and in the numbers") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    CHECK(run_in(folder / "run").layers_error.empty());
    const std::string file = RunDirectory{folder / "run"}.summary_file();
    json::object summary = json::parse(bytes_of_file(file)).as_object();
    summary.at("conflict").as_object()["layers_error"] = "ledger/a.ledger: line <3> is torn";
    write_file(file, json::serialize(summary));
    const RunRecord run = run_in(folder / "run");
    const std::vector<NamedRun> named = {{run.job, {}, std::nullopt, &run}};
    const json::object numbers = json::parse(numbers_as_json(named)).at("runs").at(0).as_object();
    CHECK(numbers.at("conflict") == summary.at("conflict"));
    const test::Markup markup = test::read_markup(run_page(run, {}));
    REQUIRE(markup.error == "");
    CHECK(any_contains(markup.texts_of("p"), "Nothing by layer: ledger/a.ledger: line <3> is"));
}

TEST_CASE("report: pairs that servers saw across workers are a table") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    CHECK(run_in(folder / "run").across.empty());
    const std::string file = RunDirectory{folder / "run"}.summary_file();
    json::object summary = json::parse(bytes_of_file(file)).as_object();
    summary["across"] =
        json::parse(R"({"pairs":{"x":{"y":{"mean":-0.125,"negative_share":0.75}}}})");
    write_file(file, json::serialize(summary));
    const test::Markup markup = test::read_markup(run_page(run_in(folder / "run"), {}));
    REQUIRE(markup.error == "");
    CHECK(any_contains(markup.texts_of("h2"), "across workers"));
    CHECK(any_contains(markup.texts_of("td"), "x / y"));
    CHECK(any_contains(markup.texts_of("td"), "-0.125"));
    summary["across"] = json::parse(R"({"pairs":{"x":{"y":{}}}})");
    write_file(file, json::serialize(summary));
    const auto refused = read_run(folder / "run");
    REQUIRE(refused.has_error());
    CHECK_THAT(refused.error().text, Catch::Contains("'mean' is missing"));
}

TEST_CASE("report: CSV has one number a line, its texts quoted where they must be") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const RunRecord run = run_in(folder / "run");
    const std::string csv = numbers_as_csv({{"a,b", {}, std::nullopt, &run}});
    CHECK(csv.find("run,quantity,of,seconds,applied,value\n") == 0);
    CHECK(csv.find("\n\"a,b\",accuracy,b,,,0.5\n") != std::string::npos);
    CHECK(csv.find("\n\"a,b\",updates,applied,,,693\n") != std::string::npos);
    CHECK(csv.find("\n\"a,b\",staleness,1,,,20\n") != std::string::npos);
    CHECK(csv.find("\n\"a,b\",gradient_norm,b,,,3\n") != std::string::npos);
    CHECK(csv.find("\n\"a,b\",weight,b,,,1.25\n") != std::string::npos);
    CHECK(csv.find("\n\"a,b\",loss,b,2,193,1\n") != std::string::npos);
    CHECK(csv.find("\"<script>alert(1)</script>&\"\"'\"") != std::string::npos);
}

TEST_CASE("timeline: steps are put together over shards with clocks of their own") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const Timeline timeline = timeline_in(folder / "run");
    CHECK(timeline.remarks.empty());
    REQUIRE(timeline.workers == std::vector<WorkerId>{WorkerId{0}, WorkerId{1}});
    // Three steps computed and pushed, and two waits between them, of each worker.
    REQUIRE(timeline.spans.size() == 16);
    const Span& computing = timeline.spans[0];
    CHECK(computing.doing == Doing::computing);
    CHECK(computing.begin_s == Approx(0.100));
    CHECK(computing.end_s == Approx(0.160));
    const Span& pushing = timeline.spans[1];
    CHECK(pushing.doing == Doing::pushing);
    CHECK(pushing.end_s == Approx(0.165));  // the other shard's, a second ahead
    CHECK(pushing.applied == 2);
    CHECK(pushing.wasted == 0);
    CHECK(pushing.staleness == 2);
    const Span& waiting = timeline.spans[2];
    CHECK(waiting.doing == Doing::waiting);
    CHECK(waiting.end_s == Approx(0.200));
    CHECK(timeline.spans[4].wasted == 2);  // the second step was rejected
    for (std::size_t i = 1; i < timeline.spans.size(); ++i) {
        if (timeline.spans[i].worker != timeline.spans[i - 1].worker) continue;
        CHECK(timeline.spans[i].begin_s == timeline.spans[i - 1].end_s);  // no gap, no overlap
    }
}

TEST_CASE("timeline: Perfetto's format names workers and has a slice for each span") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const Timeline timeline = timeline_in(folder / "run");
    const json::object trace = json::parse(to_trace_json(timeline, "job")).as_object();
    std::size_t slices = 0;
    std::vector<std::string> names;
    for (const json::value& event : trace.at("traceEvents").as_array()) {
        const std::string phase(event.at("ph").as_string());
        if (phase == "M" && event.at("name").as_string() == "thread_name") {
            names.emplace_back(event.at("args").at("name").as_string());
        }
        if (phase != "X") continue;
        const Span& span = timeline.spans.at(slices++);
        CHECK(event.at("name").as_string() == name_of(span.doing));
        CHECK(event.at("ts").to_number<double>() ==
              Approx((span.begin_s - timeline.begin_s) * 1e6).margin(1e-6));
        CHECK(event.at("dur").to_number<double>() == Approx((span.end_s - span.begin_s) * 1e6));
        CHECK(event.at("args").at("step").to_number<std::uint64_t>() == span.step.value);
    }
    CHECK(slices == timeline.spans.size());
    CHECK(names == std::vector<std::string>{"worker:0", "worker:1"});
}

TEST_CASE("timeline: Perfetto's format counts where each worker's steps spent their time") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    Timeline timeline = timeline_in(folder / "run");
    timeline.step_times = stretches_by_worker(run_in(folder / "run").points);
    REQUIRE(timeline.step_times.size() == 12);  // of seven points and two workers
    const json::object trace = json::parse(to_trace_json(timeline, "job")).as_object();
    std::vector<json::object> counters;
    for (const json::value& event : trace.at("traceEvents").as_array()) {
        if (event.at("ph").as_string() == "C") counters.push_back(event.as_object());
    }
    REQUIRE(counters.size() == 12);
    // From the third point to the fourth, 50 steps: 700 ms of computing, 10·(16 − 9) in the queue.
    const json::object& counter = counters[6 + 2];
    CHECK(counter.at("name").as_string() == "worker:1 step, ms");
    CHECK(counter.at("ts").to_number<double>() == Approx(2e6));  // since the first point
    const json::object& parts = counter.at("args").as_object();
    CHECK(parts.at("compute").to_number<double>() == Approx(14));
    CHECK(parts.at("wait").to_number<double>() == Approx(1));
    CHECK(parts.at("wire").to_number<double>() == Approx(4));
    CHECK(parts.at("queue").to_number<double>() == Approx(1.4));
    CHECK(parts.at("apply").to_number<double>() == Approx(0.5));
}

TEST_CASE("report: each worker's step is a bar as long as it took, divided") {
    const TemporaryFolder folder;
    write_run(folder / "run");
    const std::string page = run_page(run_in(folder / "run"), timeline_in(folder / "run"));
    const test::Markup markup = test::read_markup(page);
    REQUIRE(markup.error == "");
    // 18.9 and 20.9 ms: the second worker's wire takes 4 ms instead of 2.
    const auto cells = markup.texts_of("td");
    for (const std::string cell :
         {"14.000", "1.000", "2.000", "1.400", "0.500", "18.900", "4.000", "20.900"}) {
        CAPTURE(cell);
        CHECK(any_contains(cells, cell));
    }
    CHECK(any_contains(markup.texts_of("text"), "20 ms"));  // the axis, up to the longest
    CHECK(
        any_contains(markup.texts_of("figcaption"), "19.9 ms a step: compute 14, wait 1, wire 3"));
}

}  // namespace
}  // namespace detente
