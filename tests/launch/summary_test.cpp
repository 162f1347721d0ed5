#include "launch/summary.h"

#include <boost/json.hpp>
#include <catch2/catch.hpp>

#include "launch/http_server.h"

namespace detente {
namespace {

namespace json = boost::json;
using std::chrono::seconds;

ClusterView finished_view() {
    ClusterView view;
    view.job = "small";
    view.tasks = {"a", "b"};
    view.now = Time(seconds(12));
    view.training_began = Time(seconds(2));
    view.training_ended = Time(seconds(10));
    for (std::uint32_t i = 0; i < 2; ++i) {
        ProcessView shard;
        shard.node = node_of(ShardId{i});
        shard.endpoint.host = "h\"1";
        shard.last.values = {{"updates.computed", 50}, {"updates.applied", 45},
                             {"updates.rejected", 3},  {"updates.lost", 2},
                             {"staleness.sum", 9},     {"staleness.max", 4}};
        shard.last.staleness = {40, 2, 2, 0, 1};
        view.processes.push_back(shard);
    }
    ProcessView worker;
    worker.node = node_of(WorkerId{0});
    worker.last.values = {{"steps", 25},
                          {"samples", 1600},
                          {"cosine.sum", -5},
                          {"cosine.count", 25},
                          {"cosine.sum.a.b", -5},
                          {"steps.degenerate", 4},
                          {"norm.sum.a", 50},
                          {"norm.sum.b", 100},
                          {"weight.sum.a", 25},
                          {"weight.sum.b", 37.5},
                          {"compute_ms", 6000},
                          {"wait_ms", 500},
                          {"step_time.steps", 24},
                          {"step_time.compute_ms", 4800},
                          {"step_time.wait_ms", 240},
                          {"step_time.wire_ms", 60},
                          {"step_time.queue_ms", 36},
                          {"step_time.apply_ms", 12}};
    view.processes.push_back(worker);
    CheckpointView checkpoint;
    checkpoint.number = 3;
    checkpoint.directory = "/r/checkpoints/3";
    checkpoint.accuracy = {{"a", 0.75}, {"b", 0.5}};
    view.checkpoints = {checkpoint};
    view.best = 3;
    return view;
}

TEST_CASE("summary: summary.json has every promised key, counts as numbers") {
    const Summary summary = summary_of(finished_view(), Outcome{}, RunDirectory{"/r"});
    const json::object object = json::parse(to_json(summary)).as_object();
    CHECK(object.at("tasks").as_object().at("a").as_object().at("accuracy").as_double() == 0.75);
    const json::object& updates = object.at("updates").as_object();
    CHECK(updates.at("computed").to_number<std::uint64_t>() == 100);
    CHECK(updates.at("applied").to_number<std::uint64_t>() == 90);
    CHECK(updates.at("rejected").to_number<std::uint64_t>() == 6);
    CHECK(updates.at("cancelled").to_number<std::uint64_t>() == 0);
    CHECK(updates.at("lost").to_number<std::uint64_t>() == 4);
    CHECK(updates.at("in_flight").to_number<std::uint64_t>() == 0);
    const json::object& staleness = object.at("staleness").as_object();
    CHECK(staleness.at("mean").as_double() == Approx(18.0 / 90));
    CHECK(staleness.at("p50").to_number<int>() == 0);
    CHECK(staleness.at("p99").to_number<int>() == 4);
    CHECK(staleness.at("max").to_number<int>() == 4);
    CHECK(object.at("conflict").as_object().at("mean_cosine").as_double() == Approx(-0.2));
    CHECK(object.at("conflict").at("cosines").at(0).at(1).to_number<double>() == Approx(-0.2));
    CHECK(object.at("conflict").at("cosines").at(1).at(1).to_number<double>() == 1);
    CHECK(object.at("conflict").at("tasks").at(1).as_string() == "b");
    CHECK(object.at("conflict").at("degenerate_steps").to_number<int>() == 4);
    CHECK(object.at("workers").at(0).at("computing_s").to_number<double>() == 6);
    CHECK(object.at("workers").at(0).at("waiting_s").to_number<double>() == 0.5);
    for (const json::value& times :
         {object.at("step_time"), object.at("workers").at(0).at("step_time")}) {
        CHECK(times.at("steps").to_number<int>() == 24);
        CHECK(times.at("compute_ms").to_number<double>() == 200);
        CHECK(times.at("wait_ms").to_number<double>() == 10);
        CHECK(times.at("wire_ms").to_number<double>() == 2.5);
        CHECK(times.at("queue_ms").to_number<double>() == 1.5);
        CHECK(times.at("apply_ms").to_number<double>() == 0.5);
    }
    CHECK(object.at("refused").as_object().empty());
    CHECK(object.at("wall_s").to_number<double>() == 12);
    CHECK(object.at("samples_per_s").to_number<double>() == 200);
}

TEST_CASE("summary: refused messages are added up over all processes, by reason") {
    ClusterView view = finished_view();
    view.processes[0].last.values.push_back({"refused.not_finite", 2});
    view.processes[0].last.values.push_back({"refused.transport.bad_checksum", 3});
    view.processes[1].last.values.push_back({"refused.transport.bad_checksum", 4});
    view.processes[2].last.values.push_back({"refused.transport.wrong_build", 1});
    const json::object object =
        json::parse(to_json(summary_of(view, Outcome{}, RunDirectory{"/r"}))).as_object();
    CHECK(object.at("refused") == json::object{{"not_finite", 2},
                                               {"transport.bad_checksum", 7},
                                               {"transport.wrong_build", 1}});
}

TEST_CASE("summary: each task has the mean norm of its gradient and its mean weight") {
    ClusterView view = finished_view();
    ProcessView other;
    other.node = node_of(WorkerId{1});
    other.last.values = {{"cosine.count", 75},
                         {"norm.sum.a", 350},
                         {"norm.sum.b", 0},
                         {"weight.sum.a", 75},
                         {"weight.sum.b", 112.5}};
    view.processes.push_back(other);
    const auto by_task = [&view] {
        return json::parse(to_json(summary_of(view, Outcome{}, RunDirectory{"/r"})))
            .at("conflict")
            .as_object()
            .at("by_task")
            .as_object();
    };
    const json::object both = by_task();
    CHECK(both.at("a").at("norm_mean").to_number<double>() == Approx(4));
    CHECK(both.at("b").at("norm_mean").to_number<double>() == Approx(1));
    CHECK(both.at("a").at("weight_mean").to_number<double>() == Approx(1));
    CHECK(both.at("b").at("weight_mean").to_number<double>() == Approx(1.5));
    // A method by coordinates has no weights.
    for (ProcessView& process : view.processes) {
        std::erase_if(process.last.values, [](const NamedValue& value) {
            return value.name.starts_with("weight.sum.");
        });
    }
    const json::object without = by_task();
    CHECK(without.at("a").at("norm_mean").to_number<double>() == Approx(4));
    CHECK_FALSE(without.at("a").as_object().contains("weight_mean"));
}

TEST_CASE("summary: pairs that servers saw across workers are added up over shards by name") {
    ClusterView view = finished_view();
    view.tasks = {"a", "b", "c"};
    for (std::size_t shard = 0; shard < 2; ++shard) {
        auto& values = view.processes[shard].last.values;
        values.push_back({"across.arrived", 10});
        values.push_back({"across.pair.0.2.cosines", shard == 0 ? 3.0 : 1.0});
        values.push_back({"across.pair.0.2.negative", shard == 0 ? 2.0 : 0.0});
        values.push_back({"across.pair.0.2.cosine_sum", shard == 0 ? -1.5 : 0.5});
    }
    const json::value summary =
        json::parse(to_json(summary_of(view, Outcome{}, RunDirectory{"/r"})));
    const json::object& pairs = summary.at("across").at("pairs").as_object();
    CHECK(pairs.size() == 1);
    CHECK(pairs.at("a").at("c").at("mean").to_number<double>() == Approx(-0.25));
    CHECK(pairs.at("a").at("c").at("negative_share").to_number<double>() == Approx(0.5));
}

TEST_CASE("summary: the table shows accuracies, updates, staleness and where the run lies") {
    const std::string text =
        table(summary_of(finished_view(), Outcome{}, RunDirectory{"/runs/small"}));
    CHECK_THAT(text, Catch::Contains("a                     75.00 %") &&
                         Catch::Contains("computed                100") &&
                         Catch::Contains("mean 0.20, p50 0, p99 4, max 4") &&
                         Catch::Contains("-0.200") && Catch::Contains("gradients) in 4 steps") &&
                         Catch::Contains("/runs/small") && Catch::Contains("   0 ████"));
}

TEST_CASE("summary: step times are means over the steps of all workers, told in one line") {
    ClusterView view = finished_view();
    CHECK_THAT(table(summary_of(view, Outcome{}, RunDirectory{"/r"})),
               Catch::Contains("\n  214.5 ms a step: compute 200, wait 10, wire 2.5, queue 1.5, "
                               "apply 0.5\n"));
    ProcessView slow;
    slow.node = node_of(WorkerId{1});
    slow.last.values = {{"step_time.steps", 8}, {"step_time.compute_ms", 3200}};
    view.processes.push_back(slow);
    const Summary summary = summary_of(view, Outcome{}, RunDirectory{"/r"});
    CHECK(summary.step_times.steps == 32);
    CHECK(summary.step_times.mean_ms(0) == 250);
    CHECK(summary.workers.at(1).step_times.mean_ms(0) == 400);
    for (ProcessView& process : view.processes) process.last.values.clear();
    const std::string none = table(summary_of(view, Outcome{}, RunDirectory{"/r"}));
    CHECK_THAT(none, !Catch::Contains("ms a step"));
}

TEST_CASE("summary: a resumed run tells from where, and how many updates the restore took back") {
    ClusterView view = finished_view();
    CHECK_FALSE(json::parse(to_json(summary_of(view, Outcome{}, RunDirectory{"/r"})))
                    .as_object()
                    .contains("resumed"));
    view.resumed_from = "/old/checkpoints/2";
    view.samples_before = 4000;
    for (ProcessView& process : view.processes) {
        if (process.node.role != Role::shard) continue;
        process.last.values.push_back({"updates.taken_back", 600});
    }
    const Summary summary = summary_of(view, Outcome{}, RunDirectory{"/r"});
    const json::object object = json::parse(to_json(summary)).as_object();
    CHECK(object.at("samples").to_number<std::uint64_t>() == 5600);
    CHECK(object.at("samples_per_s").to_number<double>() == 200);  // of this run alone
    const json::object& resumed = object.at("resumed").as_object();
    CHECK(resumed.at("checkpoint").as_string() == "/old/checkpoints/2");
    CHECK(resumed.at("samples").to_number<std::uint64_t>() == 4000);
    CHECK(resumed.at("updates_taken_back").to_number<std::uint64_t>() == 1200);
    CHECK_THAT(table(summary),
               Catch::Contains("of the lost, applied after /old/checkpoints/2 was made: 1,200") &&
                   Catch::Contains("with the 4,000 before the resume: 5,600 samples"));
}

TEST_CASE("summary: the table says that processes were lost, and where to read why") {
    ClusterView view = finished_view();
    const Summary whole = summary_of(view, Outcome{}, RunDirectory{"/r"});
    CHECK_THAT(table(whole), !Catch::Contains("processes lost"));
    Failure lost;
    lost.node = node_of(WorkerId{0});
    view.failures = {lost};
    const Summary summary = summary_of(view, Outcome{}, RunDirectory{"/r"});
    CHECK_THAT(table(summary),
               Catch::Contains("processes lost: 1; who and why: /r/coordinator.log\n"));
}

TEST_CASE("summary: a failure is told with role, host, end, words, step and log, then the rest") {
    ClusterView view = finished_view();
    Failure fell;
    fell.node = node_of(WorkerId{0});
    fell.code = ErrorCode::peer_lost;
    fell.text = "shard:1 does not answer";
    fell.told_by_itself = true;
    Failure cause;
    cause.node = node_of(ShardId{1});
    cause.host = "node7";
    cause.process = 4711;
    cause.code = ErrorCode::peer_lost;
    cause.text = "killed by signal 11 (SIGSEGV)";
    cause.step = 812;
    view.failures = {fell, cause};
    Outcome outcome{true, fail(ErrorCode::peer_lost, "shard:1: killed by signal 11 (SIGSEGV)")};
    const std::vector<EndedProcess> ended = {
        {"server:1", ProcessEnd{0, 11}, {"one", "invariant broken at x.cpp:3"}}};
    const std::string text = failure_report(view, outcome, ended, RunDirectory{"/r"});
    CHECK_THAT(text, Catch::Contains("first:      shard:1 (server:1) on node7 (pid 4711)") &&
                         Catch::Contains("killed by signal 11 (SIGSEGV)") &&
                         Catch::Contains("invariant broken at x.cpp:3") &&
                         Catch::Contains("last step:  812") && Catch::Contains("/r/server-1.log"));
    CHECK(text.find("fell with it") < text.find("worker:0: shard:1 does not answer"));
    // What the coordinator wrote of it is how it ended: said once.
    CHECK_THAT(text, !Catch::Contains("error:  ") &&
                         Catch::Contains("ended:      killed by signal 11 (SIGSEGV)"));
}

TEST_CASE("summary: a failed shard, which counts no steps, is told with what it did last") {
    ClusterView view = finished_view();
    view.processes[0].last.activity = "applied 6920 block updates";
    Failure broken;
    broken.node = node_of(ShardId{0});
    broken.code = ErrorCode::io;
    broken.text = "cannot write /r/ledger/shard-0-1.ledger";
    broken.told_by_itself = true;
    view.failures = {broken};
    const Outcome outcome{true, fail(ErrorCode::io, broken.text)};
    const std::vector<EndedProcess> ended = {{"server:0", ProcessEnd{1, 0}, {}}};
    const std::string text = failure_report(view, outcome, ended, RunDirectory{"/r"});
    CHECK_THAT(text, Catch::Contains("error:      cannot write /r/ledger") &&
                         Catch::Contains("ended:      exit code 1\n") &&
                         Catch::Contains("last seen:  applied 6920 block updates\n") &&
                         !Catch::Contains("last step"));
}

TEST_CASE("pages: /status names every process, what it does and what it waits for") {
    ClusterView view = finished_view();
    view.processes[2].last.activity = "computing step 25";
    view.processes[2].last.waiting_for = "push reply of shard:1";
    view.processes[2].last.waited = seconds(3);
    const auto answer = answer_of(view, "/status");
    REQUIRE(answer);
    const json::object page = json::parse(answer->body).as_object();
    const json::object& worker = page.at("processes").as_array().at(2).as_object();
    CHECK(worker.at("name").as_string() == "worker:0");
    CHECK(worker.at("does").as_string() == "computing step 25");
    CHECK(worker.at("waits_for").as_string() == "push reply of shard:1");
    CHECK(worker.at("waited_s").to_number<double>() == 3);
    CHECK_FALSE(answer_of(view, "/"));
}

TEST_CASE("pages: /metrics is a Prometheus exposition with escaped labels and a histogram") {
    const auto answer = answer_of(finished_view(), "/metrics");
    REQUIRE(answer);
    CHECK_THAT(
        answer->body,
        Catch::Contains("detente_up{process=\"shard:0\",host=\"h\\\"1\",phase=\"missing\"} 0") &&
            Catch::Contains("detente_updates_applied_total 90\n") &&
            Catch::Contains("detente_staleness_bucket{le=\"0\"} 80\n") &&
            Catch::Contains("detente_staleness_bucket{le=\"+Inf\"} 90\n") &&
            Catch::Contains("detente_staleness_sum 18\n"));
}

}  // namespace
}  // namespace detente
