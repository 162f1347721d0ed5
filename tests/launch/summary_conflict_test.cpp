// What summary.json and `detente plan --masks` say of conflicts among three tasks, against numbers
// worked out by hand.
#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "common/conflict/cosine_bins.h"
#include "common/conflict/interference.h"
#include "launch/conflict_ledger.h"
#include "launch/mask_plan.h"
#include "launch/summary.h"
#include "tests/launch/simulated_run.h"
#include "tests/launch/written_ledger.h"

namespace detente::test {
namespace {

namespace json = boost::json;

ProcessView seen_by(std::uint32_t worker, std::vector<NamedValue> values) {
    ProcessView process;
    process.node = node_of(WorkerId{worker});
    process.last.values = std::move(values);
    return process;
}

// Tasks a and b share something, b and c too, a and c nothing.
ClusterView three_task_view() {
    ClusterView view;
    view.job = "three";
    view.tasks = {"a", "b", "c"};
    constexpr std::size_t kAb = 0;
    constexpr std::size_t kBc = 2;
    const auto count = [](ProcessView& process, std::size_t pair, double cosine,
                          std::uint64_t steps) {
        process.last.cosine_bins.resize(pairs_of(3) * kCosineBins);
        process.last.cosine_bins[pair * kCosineBins + cosine_bin(cosine)] += steps;
    };
    ProcessView first = seen_by(0, {{"cosine.count", 10},
                                    {"cosine.sum.a.b", -2.5},
                                    {"cosine.sum.b.c", -9.6},
                                    {"interference.opposed", 2},
                                    {"interference.norms", 11}});
    count(first, kAb, -0.25, 10);
    count(first, kBc, -0.96, 10);
    ProcessView second = seen_by(1, {{"cosine.count", 30},
                                     {"cosine.sum.a.b", 24},
                                     {"cosine.sum.b.c", -28.8},
                                     {"interference.opposed", 0},
                                     {"interference.norms", 1100}});
    count(second, kAb, 0.8, 30);
    count(second, kBc, -0.96, 30);
    // One that has resolved nothing yet.
    const ProcessView third =
        seen_by(2, {{"cosine.count", 0}, {"interference.opposed", 0}, {"interference.norms", 0}});
    view.processes = {first, second, third};
    return view;
}

json::object conflict_in(const Summary& summary) {
    return json::parse(to_json(summary)).at("conflict").as_object();
}

// Two layers of three tasks: 3,000 and 1,000 parameters.
ModelDescription three_task_model() {
    ModelDescription model;
    model.model = "three";
    model.tasks = {"a", "b", "c"};
    const TaskSet all{7};
    model.tensors = {{"trunk.a.weight", {30, 100}, all}, {"trunk.b.weight", {10, 100}, all}};
    return model;
}

void record_three_tasks(const RunDirectory& run) {
    NamesRecord names;
    names.method = "sum";
    names.tasks = {"a", "b", "c"};
    names.layers = {"trunk.a", "trunk.b"};
    ResolvedRecord record;
    record.losses = {1, 1, 1};
    // Rows of upper triangles. Lengths 1, 2, 3, one pair opposed by 2; lengths 2, 1, 1, the first
    // two agree, the last two are opposed by a half.
    record.gramians = {{1, -2, 0, 4, 0, 9}, {4, 1, 0, 1, -0.5F, 1}};
    record.weights = {{1, 1, 1}};
    write_steps(run, names, {record});
}

}  // namespace

TEST_CASE("summary: pairs have their means and quantiles from the counts of all workers") {
    const Summary summary = summary_of(three_task_view(), Outcome{}, RunDirectory{"/r"});
    const json::object conflict = conflict_in(summary);
    const json::object& pairs = conflict.at("pairs").as_object();
    REQUIRE(pairs.size() == 2);  // of a and of b
    REQUIRE(pairs.at("a").as_object().size() == 1);
    REQUIRE(pairs.at("b").as_object().size() == 1);
    const auto number = [&](const char* of, const char* with, const char* what) {
        return pairs.at(of).at(with).at(what).to_number<double>();
    };
    // 10 in the bin that begins at −¼, 30 in the one that begins at ¾; a bin is 1/16 wide.
    CHECK(number("a", "b", "mean") == Approx(21.5 / 40));
    CHECK(number("a", "b", "p10") == Approx(-0.25 + 0.4 / 16));
    CHECK(number("a", "b", "p90") == Approx(0.75 + 26.0 / 30 / 16));
    CHECK(number("a", "b", "negative_share") == Approx(0.25));
    // All 40 in the first bin.
    CHECK(number("b", "c", "mean") == Approx(-0.96));
    CHECK(number("b", "c", "p10") == Approx(-1 + 0.1 / 16));
    CHECK(number("b", "c", "p90") == Approx(-1 + 0.9 / 16));
    CHECK(number("b", "c", "negative_share") == 1);
    for (const char* of : {"a", "b"}) {
        const char* with = of[0] == 'a' ? "b" : "c";
        CHECK(pairs.at(of).at(with).as_object().size() == 4);
    }
    CHECK(conflict.at("cosines").at(0).at(2).is_null());
    CHECK(conflict.at("cosines").at(2).at(1).to_number<double>() == Approx(-0.96));
}

TEST_CASE("summary: the interference index is of the sums of all workers") {
    ClusterView view = three_task_view();
    const Summary summary = summary_of(view, Outcome{}, RunDirectory{"/r"});
    CHECK(conflict_in(summary).at("interference_index").to_number<double>() == Approx(2.0 / 1111));
    // Of nothing that is shared there is none.
    for (ProcessView& process : view.processes) {
        std::erase_if(process.last.values, [](const NamedValue& value) {
            return value.name.starts_with("interference.");
        });
    }
    CHECK_FALSE(conflict_in(summary_of(view, Outcome{}, RunDirectory{"/r"}))
                    .contains("interference_index"));
}

TEST_CASE("summary: of three tasks the interference index is that of the steps recorded") {
    const TemporaryFolder folder;
    SimulationSetup setup = setup_of(
        job_of(kQuadraticJob,
               {"model.options.tasks=3", "model.options.samples=640", "conflict.method=upgrad"}),
        folder / "run");
    const RunDirectory run = setup.run;
    auto simulation = Simulation::create(std::move(setup));
    REQUIRE(simulation.has_value());
    const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
    REQUIRE_FALSE(outcome.failed);
    const Summary summary = summary_of((*simulation)->view(), outcome, run);
    InterferenceIndex index;
    std::uint64_t steps = 0;
    const auto read = read_resolved_steps(run, [&](const auto&, const ResolvedStep& step) {
        REQUIRE(step.whole().tasks() == 3);
        index.add(step.whole());
        ++steps;
    });
    REQUIRE(read.has_value());
    CHECK(steps == summary.steps);
    CHECK(index.value() > 0);
    CHECK(index.value() <= 1);
    // The ledger has Gramians in float.
    CHECK(conflict_in(summary).at("interference_index").to_number<double>() ==
          Approx(index.value()).epsilon(1e-5));
}

TEST_CASE("masks: of three tasks the layer with the lower interference index stays shared first") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    record_three_tasks(run);
    const auto plan = plan_masks(run, three_task_model(), Job{}, 0.625);
    INFO((plan ? "" : plan.error().text));
    REQUIRE(plan.has_value());
    REQUIRE(plan->layers.size() == 2);
    CHECK(plan->layers[0].index == Approx(2.0 / 11));  // of 2 + 3 + 6
    CHECK(plan->layers[1].index == Approx(0.5 / 5));   // of 2 + 2 + 1
    CHECK(plan->layers[1].shared == Approx(1));        // 1,000 of 4,000 parameters
    CHECK(plan->layers[0].shared == Approx(0.5));      // 1,500 of 3,000
    // All of both: squares 5, 5 and 10, products −1, 0 and −½.
    CHECK(plan->index_before == Approx(1.5 / (5 + 2 * std::sqrt(50.0))));
    // Half of the first and the second: squares 4.5, 3 and 5.5, products 0, 0 and −½.
    CHECK(plan->index_after ==
          Approx(0.5 / (std::sqrt(13.5) + std::sqrt(24.75) + std::sqrt(16.5))));
    CHECK_THAT(to_text(*plan),
               Catch::Contains("0.1818") && Catch::Contains("0.1000") &&
                   Catch::Contains("interference index of what is shared: 0.0784 with all of it"));
    // As much as the second layer: it alone is left.
    const auto less = plan_masks(run, three_task_model(), Job{}, 0.25);
    REQUIRE(less.has_value());
    CHECK(less->layers[0].shared == Approx(0));
    CHECK(less->index_after == Approx(0.1));
    CHECK(less->index_before == Approx(plan->index_before));
}

}  // namespace detente::test
