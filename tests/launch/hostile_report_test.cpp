// Folders that no healthy run left: a report says what is missing, or names file and member.
#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "launch/report/page.h"
#include "launch/run_directory.h"
#include "tests/launch/markup.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

constexpr const char* kHeader =
    R"({"series":1,"job":"j","tasks":["a"],"virtual":true,"workers":1,"shards":1,"samples_planned":9})"
    "\n";
constexpr const char* kPoint =
    R"({"seconds":1,"stage":"training","steps":2,"samples":3,"workers_up":1,"updates":{"computed":4,)"
    R"("applied":4,"rejected":0,"cancelled":0,"lost":0,"in_flight":0},"loss":[null],)"
    R"("staleness":{"mean":0,"p50":0,"p99":0,"max":0}})"
    "\n";
constexpr const char* kSummary =
    R"({"job":"j","failed":true,"error":{"code":"io","text":"<b>disk & co</b>"},"tasks":{},)"
    R"("updates":{"computed":0,"applied":0,"rejected":0,"cancelled":0,"lost":0,"in_flight":0},)"
    R"("staleness":{"mean":0,"p50":0,"p99":0,"max":0,"histogram":[]},"conflict":{},"steps":0,)"
    R"("samples":0,"wall_s":1,"training_s":0,"samples_per_s":0})";

std::string with(std::string text, const std::string& what, const std::string& instead) {
    const std::size_t at = text.find(what);
    REQUIRE(at != std::string::npos);
    return text.replace(at, what.size(), instead);
}

// The refusal of a folder with these two files; an empty text is no file.
Error refusal(const std::string& summary, const std::string& series) {
    const TemporaryFolder folder;
    if (!summary.empty()) write_file(folder / "summary.json", summary);
    if (!series.empty()) write_file(folder / "series.jsonl", series);
    const auto run = read_run(folder.path());
    if (run) return Error{ErrorCode::internal, "not refused"};
    return run.error();
}

TEST_CASE("report: a folder without a run is refused and says what was expected") {
    const Error nothing = refusal("", "");
    CHECK(nothing.code == ErrorCode::io);
    CHECK_THAT(nothing.text, Catch::Contains("neither summary.json nor series.jsonl") &&
                                 Catch::Contains("a run directory"));
    CHECK(read_run("/no/such/folder").has_error());
}

TEST_CASE("report: what is no file, a folder or a pipe, is refused and not waited for") {
    for (const std::string name : {"summary.json", "series.jsonl", "job.toml"}) {
        CAPTURE(name);
        for (const bool pipe : {false, true}) {
            const TemporaryFolder folder;
            write_file(folder / "summary.json", kSummary);
            std::filesystem::remove(folder / name);
            if (pipe) {
                REQUIRE(::mkfifo((folder / name).c_str(), 0644) == 0);
            } else {
                std::filesystem::create_directory(folder / name);
            }
            const auto run = read_run(folder.path());
            REQUIRE(run.has_error());
            CHECK_THAT(run.error().text, Catch::Contains(name) && Catch::Contains("no file"));
        }
    }
}

TEST_CASE("report: a summary that is none of ours is refused by file and member") {
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"", "not JSON"},
        {"{\"job\":", "not JSON"},
        {"[]", "JSON object"},
        {with(kSummary, "\"job\":\"j\"", "\"job\":7"), "'job' must be a text"},
        {with(kSummary, "\"failed\":true", "\"failed\":\"no\""), "'failed' must be true or false"},
        {with(kSummary, "\"applied\":0,", ""), "'applied' is missing"},
        {with(kSummary, "\"applied\":0", "\"applied\":-1"), "'applied' must be a whole number"},
        {with(kSummary, "\"steps\":0", "\"steps\":1e300"), "'steps' must be a whole number"},
        {with(kSummary, "\"histogram\":[]", "\"histogram\":[\"x\"]"), "'histogram'"},
        {with(kSummary, "\"conflict\":{}", "\"conflict\":{\"tasks\":[\"a\"],\"cosines\":[]}"),
         "'cosines' must have a row"},
        {with(kSummary, "\"conflict\":{}", "\"conflict\":{\"by_task\":{\"a\":{}}}"),
         "'norm_mean' is missing"},
        {with(kSummary, "\"tasks\":{}", "\"tasks\":{\"a\":1}"), "'tasks'"},
        {with(kSummary, "\"steps\":0", "\"steps\":0,\"step_time\":{\"steps\":1}"),
         "'compute_ms' is missing"},
        {with(kSummary, "\"steps\":0", "\"steps\":0,\"step_time\":{\"steps\":1,\"compute_ms\":-1}"),
         "'compute_ms' must be a number of milliseconds"},
        {std::string(100, '['), "not JSON"},
    };
    for (const auto& [summary, why] : cases) {
        CAPTURE(summary);
        const Error error = refusal(summary.empty() ? " " : summary, "");
        CHECK(error.code == ErrorCode::bad_message);
        CHECK_THAT(error.text, Catch::Contains("summary.json") && Catch::Contains(why));
    }
}

TEST_CASE("report: a series that is none of ours is refused by line") {
    const std::string header = kHeader;
    const std::vector<std::pair<std::string, std::string>> cases = {
        {kPoint, "series.jsonl:1: the first line"},
        {header + kPoint + header, "series.jsonl:3: the first line"},
        {header + "nonsense\n" + kPoint, "series.jsonl:2: it is not JSON"},
        {with(header, "\"series\":1", "\"series\":2"), "'series' must be 1"},
        {header + with(kPoint, "[null]", "[1,2]"), "'loss' must have a number for each"},
        {header + with(kPoint, "[null]", "[\"x\"]"), "'loss' must be a number"},
        {header + with(kPoint, "\"seconds\":1", "\"seconds\":null"), "'seconds' must be a number"},
        {header + with(kPoint, "[null]", "[null],\"step_time_us\":[[1,2,3]]"),
         "'step_time_us' must hold the steps and five sums"},
        {header + with(kPoint, "[null]", "[null],\"step_time_us\":[[1,2,3,4,5,-6]]"),
         "'step_time_us' must be a whole number"},
    };
    for (const auto& [series, why] : cases) {
        CAPTURE(series);
        const Error error = refusal("", series);
        CHECK(error.code == ErrorCode::bad_message);
        CHECK_THAT(error.text, Catch::Contains(why));
    }
}

TEST_CASE("report: what a crash left is shown, with a remark for what is missing") {
    const TemporaryFolder folder;
    const std::string point = kPoint;
    write_file(folder / "series.jsonl", kHeader + point + point.substr(0, 30));
    const auto run = read_run(folder.path());
    REQUIRE(run.has_value());
    CHECK_FALSE(run->ended);
    CHECK(run->points.size() == 1);
    const auto timeline = read_timeline(folder / "ledger");
    REQUIRE(timeline.has_value());
    const test::Markup markup = test::read_markup(run_page(*run, *timeline));
    REQUIRE(markup.error == "");
    const auto remarks = markup.texts_of("li");
    REQUIRE(remarks.size() == 3);
    CHECK_THAT(remarks[0], Catch::Contains("is cut off"));
    CHECK_THAT(remarks[1], Catch::Contains("There is no summary.json"));
    CHECK_THAT(remarks[2], Catch::Contains("no timeline"));
}

TEST_CASE("report: the words of a failed run are shown as text") {
    const TemporaryFolder folder;
    write_file(folder / "summary.json", kSummary);
    const auto run = read_run(folder.path());
    REQUIRE(run.has_value());
    const test::Markup markup = test::read_markup(run_page(*run, {}));
    REQUIRE(markup.error == "");
    CHECK(markup.texts_of("b").empty());
    CHECK(markup.texts_of("p").at(1) == "Failed: <b>disk & co</b>");
}

TEST_CASE("timeline: a file that is no ledger, and one that was altered, are named") {
    const TemporaryFolder folder;
    write_file(folder / "shard-0.1.ledger", "no ledger at all, but long enough to be looked at");
    const auto timeline = read_timeline(folder.path());
    REQUIRE(timeline.has_error());
    CHECK(timeline.error().text.find("shard-0.1.ledger") != std::string::npos);
}

}  // namespace
}  // namespace detente
