#include "launch/progress.h"

#include <catch2/catch.hpp>
#include <cstdio>

#include "common/staleness/staleness_bins.h"

namespace detente {
namespace {

using std::chrono::seconds;

ClusterView view_at(seconds at, double samples, double finished) {
    ClusterView view;
    view.now = Time(at);
    view.tasks = {"item", "parity"};
    ProcessView shard;
    shard.node = node_of(ShardId{0});
    shard.last.values = {{"batches.total", 100},  {"batches.finished", finished},
                         {"updates.applied", 90}, {"updates.rejected", 10},
                         {"staleness.sum", 30},   {"staleness.max", 3}};
    shard.last.staleness = {70, 10, 9, 1};
    ProcessView worker;
    worker.node = node_of(WorkerId{0});
    worker.last.values = {{"samples", samples}, {"steps", samples / 64}};
    worker.last.losses = {0.5, 0.25};
    view.processes = {shard, worker};
    return view;
}

TEST_CASE("progress: rates and the time left are those of the last seconds") {
    ProgressMeter meter;
    CHECK_FALSE(meter.measure(view_at(seconds(1), 0, 0)).left);
    const ProgressFigures figures = meter.measure(view_at(seconds(5), 6400, 20));
    CHECK(figures.samples_per_s == Approx(1600));
    CHECK(figures.left == seconds(16));  // 20 % in 4 s
    CHECK(figures.accepted == Approx(0.9));
    // What is older than the window is forgotten: a run that slowed down says so.
    CHECK(meter.measure(view_at(seconds(14), 6400 + 90, 21)).samples_per_s == Approx(10));
}

TEST_CASE("progress: one line says step, samples/s, losses, staleness, accepted, time left") {
    ProgressMeter meter;
    meter.measure(view_at(seconds(1), 0, 0));
    const std::string line =
        progress_line(meter.measure(view_at(seconds(5), 128000, 20)), {"item", "parity"});
    CHECK(line ==
          "step 2,000 · 32,000 samples/s · loss item 0.5000 parity 0.2500 · staleness p50 0 p99 3 "
          "· accepted 90.0 % · 20 % done · 0:16 left");
}

TEST_CASE("progress: on a narrow terminal the line loses what matters least, never the time left") {
    ProgressMeter meter;
    meter.measure(view_at(seconds(1), 0, 0));
    const ProgressFigures figures = meter.measure(view_at(seconds(5), 128000, 20));
    const auto line = [&](std::size_t columns) {
        return progress_line(figures, {"item", "parity"}, columns);
    };
    const std::string brief =
        "step 2,000 · 32,000/s · item 0.50 parity 0.25 · stale 0/3 · ok 90 % · 0:16 left";
    CHECK(line(110) == brief);
    CHECK(line(79) == brief);  // a terminal of 80 columns: nothing is left out
    CHECK(line(78) == "step 2,000 · 32,000/s · item 0.50 parity 0.25 · ok 90 % · 0:16 left");
    CHECK(line(60) == "step 2,000 · 32,000/s · item 0.50 parity 0.25 · 0:16 left");
    CHECK(line(40) == "step 2,000 · 32,000/s · 0:16 left");
}

TEST_CASE("progress: in short, the share done stands where no time left is known") {
    ProgressFigures figures;
    figures.steps = 12;
    figures.losses = {0.5, 0.25};
    figures.accepted = 0.999;
    CHECK(progress_line(figures, {"item", "parity"}, 79) ==
          "step 12 · 0/s · item 0.50 parity 0.25 · stale 0/0 · ok 99 % · 0 % done");
}

TEST_CASE("progress: staleness quantiles and mean") {
    const StalenessSummary summary = summarise(view_at(seconds(1), 0, 0));
    CHECK(summary.count == 90);
    CHECK(summary.mean == Approx(30.0 / 90));
    CHECK(summary.p50 == 0);
    CHECK(summary.p99 == 3);  // the 90th of 90
    CHECK(summary.max == 3);
    CHECK(summarise(ClusterView{}).count == 0);
}

TEST_CASE("progress: staleness past the last bin of the histogram is told within a 32nd") {
    ClusterView view = view_at(seconds(1), 0, 0);
    view.processes.resize(1);
    ProcessView other = view.processes[0];
    other.node = node_of(ShardId{1});
    view.processes.push_back(other);
    // 300 updates of each shard between 100 and 399, and two far ones.
    std::uint64_t sum = 0;
    for (ProcessView& shard : view.processes) {
        shard.last.staleness.clear();
        for (std::uint64_t staleness = 100; staleness < 400; ++staleness) {
            count_staleness(shard.last.staleness, staleness);
            sum += staleness;
        }
        shard.last.values = {{"staleness.sum", static_cast<double>(sum / 2)},
                             {"staleness.max", 399}};
    }
    count_staleness(view.processes[1].last.staleness, 5000);
    view.processes[1].last.values[1].value = 5000;
    const StalenessSummary summary = summarise(view);
    CHECK(summary.count == 601);
    CHECK(summary.p50 >= 250);  // the 301st of 601
    CHECK(summary.p50 <= 250 + 250 / 32);
    CHECK(summary.p99 >= 397);
    CHECK(summary.p99 <= 397 + 397 / 32);
    CHECK(summary.max == 5000);
    // For people and for /metrics: a bin per version, the last is open.
    const std::vector<std::uint64_t> histogram = total_staleness(view);
    REQUIRE(histogram.size() == 64);
    CHECK(histogram[62] == 0);
    CHECK(histogram[63] == 601);
}

std::string written(std::FILE* file) {
    std::rewind(file);
    std::string text(1000, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), file));
    return text;
}

TEST_CASE("progress: a screen that is no terminal gets a plain line every few seconds") {
    std::FILE* file = std::tmpfile();
    Screen screen(file, false);
    for (int second = 0; second <= 11; ++second) {
        screen.progress("at " + std::to_string(second), Time(seconds(second)));
    }
    CHECK(written(file) == "at 0\nat 5\nat 10\n");
    std::fclose(file);
}

TEST_CASE("progress: on a terminal the line rewrites itself, and other lines stand above it") {
    std::FILE* file = std::tmpfile();
    Screen screen(file, true);
    screen.progress("one", Time(seconds(0)));
    screen.progress("two", Time(seconds(0)));
    screen.line("a warning");
    CHECK(written(file) == "one\r\033[Ktwo\r\033[Ka warning\ntwo");
    std::fclose(file);
}

TEST_CASE("progress: numbers and durations for people") {
    CHECK(with_commas(0) == "0");
    CHECK(with_commas(999) == "999");
    CHECK(with_commas(1234567) == "1,234,567");
    CHECK(duration_text(seconds(9)) == "0:09");
    CHECK(duration_text(seconds(3723)) == "1:02:03");
}

}  // namespace
}  // namespace detente
