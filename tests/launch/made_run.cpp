#include "tests/launch/made_run.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "launch/run_directory.h"
#include "launch/series.h"
#include "launch/summary.h"
#include "ps/ledger.h"
#include "tests/temporary_folder.h"

namespace detente::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// What a coordinator saw `at` seconds after the start; two workers.
ClusterView view_at(int at) {
    ClusterView view;
    view.job = kHostile;
    view.tasks = {kHostile, "b"};
    view.stage = Stage::training;
    view.now = Time(seconds(at));
    view.training_began = Time(seconds(1));
    view.samples_planned = 6400;
    ProcessView shard;
    shard.node = node_of(ShardId{0});
    shard.phase = Phase::working;
    const double done = at * 100;
    shard.last.values = {{"updates.computed", done},        {"updates.applied", done - 7},
                         {"updates.rejected", 4},           {"updates.lost", 3},
                         {"staleness.sum", 2 * (done - 7)}, {"staleness.max", 3}};
    shard.last.staleness = {0, 20, static_cast<std::uint64_t>(done) - 47, 20};
    view.processes.push_back(shard);
    for (std::uint32_t i = 0; i < 2; ++i) {
        ProcessView worker;
        worker.node = node_of(WorkerId{i});
        worker.phase = Phase::working;
        worker.last.values = {{"steps", done / 2},
                              {"samples", done * 32},
                              {"cosine.sum", -0.25 * done},
                              {"cosine.count", done},
                              {std::string("cosine.sum.") + kHostile + ".b", -0.25 * done},
                              {std::string("norm.sum.") + kHostile, 2 * done},
                              {"norm.sum.b", 3 * done},
                              {std::string("weight.sum.") + kHostile, done},
                              {"weight.sum.b", 1.25 * done},
                              {"compute_ms", at * 900.0},
                              {"wait_ms", at * 100.0},
                              {"step_time.steps", done / 2},
                              {"step_time.compute_ms", at * 700.0},
                              {"step_time.wait_ms", at * 50.0},
                              {"step_time.wire_ms", at * (i + 1) * 100.0},
                              {"step_time.queue_ms", at * at * 10.0},
                              {"step_time.apply_ms", at * 25.0}};
        worker.last.losses = {2.0 / at, i == 0 ? 1.0 / at : 3.0 / at};
        view.processes.push_back(worker);
    }
    return view;
}

// Two shards whose clocks differ by a second; three steps of each of two workers.
void write_ledgers(const std::string& folder) {
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        LedgerOrigin origin;
        origin.node = node_of(ShardId{shard});
        const auto ledger =
            LedgerWriter::create(folder + "/" + ledger_file_name(origin.node, {1}), origin);
        REQUIRE(ledger.has_value());
        const auto at = [shard](int ms) { return Time(milliseconds(ms + 1000 * int(shard))); };
        for (std::uint32_t worker = 0; worker < 2; ++worker) {
            for (int step = 1; step <= 3; ++step) {
                const int begin = 100 * step + 10 * static_cast<int>(worker);
                PullRecord pull;
                pull.worker = WorkerId{worker};
                pull.incarnation = Incarnation{1};
                pull.step = Step{static_cast<std::uint64_t>(step)};
                REQUIRE((*ledger)->append({at(begin), pull}).has_value());
                VerdictRecord verdict;
                verdict.worker = pull.worker;
                verdict.incarnation = pull.incarnation;
                verdict.step = pull.step;
                VerdictRecord::Row row;
                row.staleness = 2;
                row.verdict = step == 2 ? Verdict::rejected : Verdict::applied;
                verdict.rows = {row};
                const int push = begin + 60 + 5 * static_cast<int>(shard);
                REQUIRE((*ledger)->append({at(push), verdict}).has_value());
            }
        }
    }
}

}  // namespace

void write_run(const std::string& path, double share_right) {
    const RunDirectory run{path};
    std::filesystem::create_directories(run.ledger_dir());
    auto series = SeriesWriter::create(run.series_file(), {seconds(1), false});
    REQUIRE(series.has_value());
    for (int at = 1; at <= 6; ++at) REQUIRE(series->note(view_at(at)).has_value());
    ClusterView view = view_at(7);
    view.training_ended = view.now;
    view.checkpoints.push_back({1, "/c/1", 6400, {{kHostile, share_right}, {"b", 0.5}}});
    REQUIRE(series->finish(view).has_value());
    write_file(run.summary_file(), to_json(summary_of(view, Outcome{}, run)));
    write_file(run.job_file(), std::string("name = \"") + "<script>" + "\"\n");
    write_ledgers(run.ledger_dir());
}

}  // namespace detente::test
