// What is said of a step, against numbers worked out by hand; from records, and from whole runs.
#include "launch/explain.h"

#include <boost/json.hpp>
#include <cmath>
#include <map>

#include "launch/mask_plan.h"
#include "launch/report/conflict_history.h"
#include "launch/sync_plan.h"
#include "tests/launch/simulated_run.h"
#include "tests/launch/written_ledger.h"

namespace detente::test {
namespace {

namespace json = boost::json;

Gramian gramian_of(double a, double b, double product) {
    Gramian gramian(2);
    gramian.at(0, 0) = a;
    gramian.at(1, 1) = b;
    gramian.at(0, 1) = gramian.at(1, 0) = product;
    return gramian;
}

const NamesRecord kNames{"pcgrad", {"left", "right"}, {"trunk.a", "trunk.b"}};

// In layer a the tasks are opposed, in layer b they agree; over both they are opposed.
ResolvedStep opposed_step() {
    ResolvedStep step;
    step.worker = WorkerId{1};
    step.step = Step{7};
    step.batch = {0, 6, 1};
    step.losses = {1.5F, 2.5F};
    step.gramians = {gramian_of(4, 1, -2), gramian_of(1, 1, 0.5)};
    step.weights = {{1, 2}};
    return step;
}

TEST_CASE("explain: cosines are of all that is shared and of each layer") {
    const ExplainedStep explained = explain(kNames, opposed_step());
    REQUIRE(explained.pairs.size() == 1);
    CHECK(explained.pairs[0].cosine == Approx(-1.5 / std::sqrt(10.0)));
    REQUIRE(explained.pairs[0].layers.size() == 2);
    CHECK(explained.pairs[0].layers[0].layer == "trunk.a");
    CHECK(explained.pairs[0].layers[0].cosine == Approx(-1));
    CHECK(explained.pairs[0].layers[1].cosine == Approx(0.5));
}

TEST_CASE("explain: says what the sum and what the method do for a task") {
    // G = [[5, −1.5], [−1.5, 2]]. g·Σg: 3.5 and .5; with w = (1, 2): 5 − 3 = 2 and −1.5 + 4 = 2.5.
    // ‖Σg‖² = 4, ‖r‖² = 2 + 5 = 7.
    const ExplainedStep explained = explain(kNames, opposed_step());
    REQUIRE(explained.of_tasks.size() == 2);
    CHECK(explained.of_tasks[0].length == Approx(std::sqrt(5.0)));
    CHECK(explained.of_tasks[0].with_sum == Approx(3.5 / std::sqrt(20.0)));
    CHECK(*explained.of_tasks[0].with_result == Approx(2 / std::sqrt(35.0)));
    CHECK(*explained.of_tasks[0].progress == Approx(2 / 3.5));
    CHECK(*explained.of_tasks[1].progress == Approx(5));
    const std::string text = to_text(explained);
    CHECK_THAT(text, Catch::Contains("worker:1 step 7, batch 0.6") &&
                         Catch::Contains("left / right: cosine -0.474, in conflict") &&
                         Catch::Contains("progress -43 % beside the plain sum") &&
                         Catch::Contains("progress +400 % beside the plain sum"));
}

TEST_CASE("explain: tasks that share nothing are no pair and a layer of one task is not theirs") {
    // Layer a is of the first two tasks, layer b of the last two.
    ResolvedStep step = opposed_step();
    step.losses = {1, 2, 3};
    step.weights = {{1, 1, 1}};
    step.gramians.assign(2, Gramian(3));
    const auto fill = [](Gramian& gramian, std::size_t i, std::size_t j, double product) {
        gramian.at(i, i) = gramian.at(j, j) = 4;
        gramian.at(i, j) = gramian.at(j, i) = product;
    };
    fill(step.gramians[0], 0, 1, -2);
    fill(step.gramians[1], 1, 2, 2);
    NamesRecord names = kNames;
    names.tasks = {"x", "y", "z"};
    const ExplainedStep explained = explain(names, step);
    REQUIRE(explained.pairs.size() == 2);
    CHECK(explained.pairs[0].b == 1);
    REQUIRE(explained.pairs[0].layers.size() == 1);
    CHECK(explained.pairs[0].layers[0].layer == "trunk.a");
    CHECK(explained.pairs[1].a == 1);
    REQUIRE(explained.pairs[1].layers.size() == 1);
    CHECK(explained.pairs[1].layers[0].layer == "trunk.b");
    CHECK_THAT(to_text(explained), !Catch::Contains("x / z"));
}

TEST_CASE("explain: layers with weights of their own add up layer by layer") {
    ResolvedStep step = opposed_step();
    step.weights = {{1, 2}, {1, 1}};
    // g₀·r = (4 − 4) + (1 + .5) = 1.5
    const ExplainedStep explained = explain(kNames, step);
    CHECK(*explained.of_tasks[0].progress == Approx(1.5 / 3.5));
}

TEST_CASE("explain: a task that has no part in a group has no weight there") {
    ResolvedStep step = opposed_step();
    step.gramians[1] = gramian_of(1, 0, 0);
    step.weights = {{1, 2}, {1.5F, std::nanf("")}};
    const ExplainedStep explained = explain(kNames, step);
    // g₁·r = −2 + 2·1 over the first layer, g₁·Σg = −2 + 1 there; the second has nothing of it.
    REQUIRE(explained.of_tasks[1].with_result.has_value());
    CHECK(explained.of_tasks[1].with_sum < 0);
    CHECK(*explained.of_tasks[1].with_result == Approx(0).margin(1e-12));
    CHECK_THAT(to_text(explained),
               Catch::Contains("    trunk.b                            1.5000        -\n"));
    const json::object object = json::parse(to_json(explained)).as_object();
    CHECK(object.at("tasks").at(1).at("weights").as_object().size() == 1);
    CHECK(object.at("tasks").at(0).at("weights").as_object().size() == 2);
}

TEST_CASE("explain: weights of groups are listed group by group and as JSON") {
    ResolvedStep step = opposed_step();
    step.weights = {{1, 2}, {1.5F, 0.25F}};
    const ExplainedStep by_layer = explain(kNames, step);
    CHECK(by_layer.groups == kNames.layers);
    CHECK_THAT(to_text(by_layer),
               Catch::Contains("weights by group of conflict.scope: left, right\n") &&
                   Catch::Contains("    trunk.b                            1.5000   0.2500\n"));
    const json::object object = json::parse(to_json(by_layer)).as_object();
    const json::object& right = object.at("tasks").at(1).as_object();
    CHECK_FALSE(right.contains("weight"));
    CHECK(right.at("weights").at("trunk.a").to_number<double>() == 2);
    CHECK(right.at("weights").at("trunk.b").to_number<double>() == 0.25);

    // Three blocks in two layers: which block lies where is not recorded.
    step.weights.push_back({3, 4});
    const ExplainedStep by_block = explain(kNames, step);
    CHECK_FALSE(by_block.of_tasks[0].with_result.has_value());
    CHECK_THAT(to_text(by_block),
               Catch::Contains("    group 3                            3.0000") &&
                   Catch::Contains("only a part of what is shared") &&
                   !Catch::Contains("progress"));
    CHECK(json::parse(to_json(by_block)).at("tasks").at(0).at("weights").as_object().size() == 3);
}

TEST_CASE("explain: a task that the sum would have harmed is told so") {
    ResolvedStep step = opposed_step();
    step.gramians = {gramian_of(1, 100, -5), gramian_of(0, 0, 0)};
    step.weights = {{10, 0.5F}};
    const std::string text = to_text(explain(kNames, step));
    CHECK_THAT(text, Catch::Contains("the plain sum would have raised its loss; this does not"));
}

TEST_CASE("explain: without weights nothing is said of the result") {
    ResolvedStep step = opposed_step();
    step.weights.clear();
    const ExplainedStep explained = explain(kNames, step);
    CHECK_FALSE(explained.of_tasks[0].with_result.has_value());
    const json::object object = json::parse(to_json(explained)).as_object();
    CHECK_FALSE(object.at("tasks").at(0).as_object().contains("weight"));
}

TEST_CASE("explain: of a method on averages the result is what was measured and not what G says") {
    NamesRecord names = kNames;
    for (const char* method : {"moco", "db_mtl"}) {
        names.method = method;
        ResolvedStep step = opposed_step();
        step.result = {7, -1, 16};  // g₀·Σg = 3.5, ‖g₀‖² = 5
        const ExplainedStep explained = explain(names, step);
        CHECK(explained.weighs == Weighs::averages);
        REQUIRE(explained.of_tasks[0].with_result.has_value());
        CHECK(*explained.of_tasks[0].with_result == Approx(7 / (std::sqrt(5.0) * 4)));
        CHECK(*explained.of_tasks[0].progress == Approx(2));
        CHECK(*explained.of_tasks[1].with_result < 0);
        CHECK(explained.of_tasks[0].with_sum == Approx(3.5 / std::sqrt(20.0)));
        CHECK_THAT(to_text(explained), Catch::Contains("progress +100 %") &&
                                           Catch::Contains("moving averages of the gradients") &&
                                           Catch::Contains("2.0000"));  // the second task's weight
        const json::object object = json::parse(to_json(explained)).as_object();
        CHECK(object.at("weights_multiply").as_string() == "averages");
        CHECK(object.at("tasks").at(1).at("weight").to_number<double>() == 2);
        CHECK(object.at("tasks").at(0).at("progress").to_number<double>() == Approx(2));

        step.result.clear();
        const ExplainedStep part = explain(names, step);
        CHECK_FALSE(part.of_tasks[0].with_result.has_value());
        CHECK_THAT(to_text(part), !Catch::Contains("progress") && Catch::Contains("unknown") &&
                                      Catch::Contains("only a part of what is shared"));
    }
    CHECK(weighs("pcgrad") == Weighs::gradients);
    CHECK(weighs("a method of tomorrow") == Weighs::gradients);
}

TEST_CASE("explain: a method by coordinates is said to have no weights and what came of it") {
    NamesRecord names = kNames;
    ResolvedStep step = opposed_step();
    step.weights.clear();
    step.result = {7, -1, 16};
    for (const char* method : {"graddrop", "trimmed_mean"}) {
        names.method = method;
        const ExplainedStep explained = explain(names, step);
        CHECK_THAT(to_text(explained),
                   Catch::Contains("decides coordinate by coordinate and has no weights") &&
                       Catch::Contains("  none  ") && Catch::Contains("progress +100 %") &&
                       Catch::Contains("left / right: cosine -0.474, in conflict"));
        const json::object object = json::parse(to_json(explained)).as_object();
        CHECK(object.at("weights_multiply").as_string() == "nothing");
    }
}

TEST_CASE("conflicts: a worker records what came of each task where weights do not say it") {
    struct Case {
        std::vector<std::string> job;
        std::vector<double> weights;  // r as a sum of the batch's gradients; empty: as recorded
    };
    const Case cases[] = {
        // An average that takes all of a gradient in is that gradient.
        {{"conflict.method=moco", "conflict.beta=1"}, {}},
        {{"conflict.method=moco", "conflict.beta=1", "worker.clip_norm=0.01"}, {}},
        {{"conflict.method=trimmed_mean", "conflict.trim=0"}, {0.5, 0.5}},
        {{"conflict.method=constant", "conflict.weights=[0.5,2]", "conflict.scope=block",
          "blocks.bytes=4096", "model.options.dimension=12000", "model.options.samples=320"},
         {0.5, 2}},
        {{"conflict.method=constant", "conflict.weights=[0.5,2]", "conflict.scope=layer",
          "ledger.conflicts=whole"},
         {0.5, 2}},
    };
    for (const Case& one : cases) {
        CAPTURE(one.job);
        const TemporaryFolder folder;
        SimulationSetup setup = setup_of(job_of(kQuadraticJob, one.job), folder / "run");
        const RunDirectory run = setup.run;
        auto simulation = Simulation::create(std::move(setup));
        REQUIRE(simulation.has_value());
        REQUIRE_FALSE((*simulation)->run([] { return std::nullopt; }).failed);
        std::uint64_t steps = 0;
        const auto read = read_resolved_steps(run, [&](const auto&, const ResolvedStep& step) {
            ++steps;
            REQUIRE(step.result.size() == 3);
            std::vector<double> weights = one.weights;
            for (std::size_t i = 0; weights.size() < 2; ++i) {
                weights.push_back(static_cast<double>(step.weights[0][i]));
            }
            const Gramian gramian = step.whole();
            double result_sq = 0;
            for (std::size_t i = 0; i < 2; ++i) {
                double product = 0;
                for (std::size_t j = 0; j < 2; ++j) product += weights[j] * gramian.at(i, j);
                result_sq += weights[i] * product;
                // Beside the lengths: the product itself may be next to nothing.
                const double scale =
                    std::sqrt(gramian.at(i, i) * static_cast<double>(step.result[2]));
                REQUIRE(static_cast<double>(step.result[i]) ==
                        Approx(product).margin(1e-5 * scale + 1e-12));
            }
            REQUIRE(static_cast<double>(step.result[2]) == Approx(result_sq).epsilon(1e-4));
        });
        INFO((read ? "" : read.error().text));
        REQUIRE(read.has_value());
        CHECK(steps >= 20);
    }
}

TEST_CASE("conflicts: what workers record of a run is read back step by step and by name") {
    const TemporaryFolder folder;
    const Job job = job_of(kQuadraticJob, {"conflict.method=pcgrad"});
    SimulationSetup setup = setup_of(job, folder / "run");
    const RunDirectory run = setup.run;
    auto simulation = Simulation::create(std::move(setup));
    REQUIRE(simulation.has_value());
    const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
    REQUIRE_FALSE(outcome.failed);
    const Summary summary = summary_of((*simulation)->view(), outcome, run);

    std::uint64_t steps = 0;
    double cosines = 0;
    double negative = 0;
    std::vector<double> norms(2, 0.0);
    std::vector<double> weights(2, 0.0);
    std::map<std::uint32_t, std::uint64_t> last;
    const auto read = read_resolved_steps(run, [&](const auto& names, const ResolvedStep& step) {
        ++steps;
        REQUIRE(names.method == "pcgrad");
        REQUIRE(names.tasks.size() == 2);
        REQUIRE(step.gramians.size() == names.layers.size());
        REQUIRE(step.weights.size() == 1);
        REQUIRE(step.step.value > last[step.worker.value]);
        last[step.worker.value] = step.step.value;
        const double cosine = cosines_of(step.whole())[1];
        cosines += cosine;
        negative += cosine < 0 ? 1 : 0;
        for (std::size_t task = 0; task < 2; ++task) {
            norms[task] += std::sqrt(step.whole().at(task, task));
            weights[task] += static_cast<double>(step.weights[0][task]);
        }
    });
    REQUIRE(read.has_value());
    CHECK(steps == summary.steps);
    REQUIRE(summary.mean_cosine.has_value());
    CHECK(cosines / static_cast<double>(steps) == Approx(*summary.mean_cosine).margin(1e-6));
    REQUIRE(summary.pairs.size() == 1);
    CHECK(summary.pairs[0].mean == Approx(*summary.mean_cosine));
    CHECK(summary.pairs[0].negative_share ==
          Approx(negative / static_cast<double>(steps)).margin(0.01));
    CHECK(*summary.conflict_share == Approx(summary.pairs[0].negative_share));
    CHECK(summary.pairs[0].p10 <= summary.pairs[0].p90);
    REQUIRE(summary.by_task.size() == 2);
    for (std::size_t task = 0; task < 2; ++task) {
        CHECK(summary.by_task[task].norm_mean == Approx(norms[task] / static_cast<double>(steps)));
        REQUIRE(summary.by_task[task].weight_mean.has_value());
        CHECK(*summary.by_task[task].weight_mean ==
              Approx(weights[task] / static_cast<double>(steps)));
    }

    const auto history = read_conflict_history(run);
    REQUIRE(history.has_value());
    CHECK(history->pairs.size() == 1);
    CHECK(history->weights.size() == 2);
    CHECK_FALSE(history->over_time[0].empty());
    CHECK(history->norms.size() == 2);
    CHECK(history->in_conflict.size() == history->over_time[0].size());
}

TEST_CASE("conflicts: the summary has the pairs of every layer they met in and no other") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    ResolvedRecord opposed;
    opposed.losses = {1, 1};
    opposed.gramians = {{4, -1, 4}, {1, 0, 1}};  // cosine −¼; nothing in common
    ResolvedRecord aligned = opposed;
    aligned.step = {1};
    aligned.gramians = {{4, 3, 4}, {1, 0, 1}};
    NamesRecord names;
    names.method = "sum";
    names.tasks = {"left", "right"};
    names.layers = {"trunk", "neck"};
    write_steps(run, names, {opposed, aligned, aligned, aligned});
    Summary summary;
    auto layers = read_layer_pairs(run);
    INFO((layers ? "" : layers.error().text));
    REQUIRE(layers.has_value());
    summary.layers = std::move(*layers);
    const json::object conflict = json::parse(to_json(summary)).at("conflict").as_object();
    const json::object& by_layer = conflict.at("layers").as_object();
    REQUIRE(by_layer.size() == 2);
    CHECK(by_layer.at("neck").as_object().empty());
    const json::object& pair = by_layer.at("trunk").at("left").at("right").as_object();
    CHECK(pair.at("mean").as_double() == Approx(0.5));
    CHECK(pair.at("negative_share").as_double() == Approx(0.25));
    // One of four in the bin that begins at −¼, three in the one that begins at ¾.
    CHECK(pair.at("p10").as_double() == Approx(-0.25 + 0.4 / 16));
    CHECK(pair.at("p90").as_double() == Approx(0.75 + 2.6 / 3 / 16));
}

TEST_CASE("conflicts: a ledger that is not readable is named in the summary") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    write_steps(run, kNames, {});
    const std::string file =
        run.ledger_dir() + "/" + ledger_file_name(node_of(WorkerId{0}), Incarnation{1});
    std::ofstream(file, std::ios::trunc) << "not a ledger";
    const Summary summary = summary_of({}, Outcome{}, run);
    CHECK(summary.layers.empty());
    CHECK_THAT(summary.layers_error, Catch::Contains(file));
}

TEST_CASE("conflicts: under conflict.scope layer the weights over time are means over the groups") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    ResolvedRecord record;
    record.losses = {1, 1};
    record.gramians = {{4, -1, 4}, {1, 0.5F, 1}};
    record.weights = {{1, 2}, {3, 0.5F}};
    write_steps(run, kNames, {record});
    const auto history = read_conflict_history(run);
    INFO((history ? "" : history.error().text));
    REQUIRE(history.has_value());
    CHECK(history->weight_groups == 2);
    REQUIRE(history->norms.size() == 2);
    REQUIRE(history->norms[0].size() == 1);
    CHECK(history->norms[0][0].second == Approx(std::sqrt(5.0)));
    REQUIRE(history->in_conflict.size() == 1);
    CHECK(history->in_conflict[0].second == 1);  // −1 + .5 over both layers
    REQUIRE(history->weights.size() == 2);
    REQUIRE(history->weights[1].size() == 1);
    CHECK(history->weights[0][0].second == Approx(2));
    CHECK(history->weights[1][0].second == Approx(1.25));
}

// w0 is of the first two tasks, w1 of all three: under a scope of blocks, groups of their own.
TEST_CASE("conflicts: weights over time are means over the groups that a task has a part in") {
    for (const char* scope : {"layer", "block"}) {
        CAPTURE(scope);
        const TemporaryFolder folder;
        SimulationSetup setup =
            setup_of(job_of(kQuadraticJob + "[[task]]\nname = \"task2\"\nexclude = [\"w0\"]\n",
                            {"conflict.method=constant", "conflict.weights=[0.5,0.25,3]",
                             std::string("conflict.scope=") + scope, "model.options.tasks=3",
                             "model.options.tensors=2", "model.options.samples=320"}),
                     folder / "run");
        const RunDirectory run = setup.run;
        auto simulation = Simulation::create(std::move(setup));
        REQUIRE(simulation.has_value());
        const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
        REQUIRE_FALSE(outcome.failed);
        const Summary summary = summary_of((*simulation)->view(), outcome, run);
        const auto history = read_conflict_history(run);
        REQUIRE(history.has_value());
        CHECK(history->weight_groups == 2);
        REQUIRE(history->weights.size() == 3);
        REQUIRE(summary.by_task.size() == 3);
        for (std::size_t task = 0; task < 3; ++task) {
            REQUIRE(summary.by_task[task].weight_mean.has_value());
            for (const auto& [seconds, weight] : history->weights[task]) {
                CHECK(weight == Approx(*summary.by_task[task].weight_mean));
            }
        }
        CHECK(*summary.by_task[2].weight_mean == Approx(3));
    }
}

TEST_CASE("conflicts: a run that recorded none says so") {
    const TemporaryFolder folder;
    SimulationSetup setup =
        setup_of(job_of(kQuadraticJob, {"ledger.conflicts=off"}), folder / "run");
    const RunDirectory run = setup.run;
    auto simulation = Simulation::create(std::move(setup));
    REQUIRE(simulation.has_value());
    REQUIRE_FALSE((*simulation)->run([] { return std::nullopt; }).failed);
    const auto read = read_resolved_steps(run, [](const auto&, const ResolvedStep&) {});
    REQUIRE(read.has_error());
    CHECK(read.error().code == ErrorCode::not_supported);
    CHECK_THAT(read.error().text, Catch::Contains("ledger.conflicts"));
    CHECK(read_conflict_history(run)->empty());
}

TEST_CASE("conflicts: a run whose tasks were split over workers is told that") {
    const TemporaryFolder folder;
    SimulationSetup setup =
        setup_of(job_of(kQuadraticJob, {"worker.split_tasks=true", "conflict.method=sum",
                                        "across.method=project", "model.options.samples=320"}),
                 folder / "run");
    const RunDirectory run = setup.run;
    const Job job = setup.job;
    auto simulation = Simulation::create(std::move(setup));
    REQUIRE(simulation.has_value());
    const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
    REQUIRE_FALSE(outcome.failed);
    const Summary summary = summary_of((*simulation)->view(), outcome, run);
    REQUIRE(summary.across.has_value());
    REQUIRE(summary.across->pairs.size() == 1);
    CHECK(summary.across->pairs[0].mean == Approx(summary.across->mean_cosine));
    CHECK(summary.across->pairs[0].negative_share >= 0);
    CHECK(summary.across->pairs[0].negative_share <= 1);
    const auto why = [&run] {
        const auto read = read_resolved_steps(run, [](const auto&, const ResolvedStep&) {});
        REQUIRE(read.has_error());
        CHECK(read.error().code == ErrorCode::not_supported);
        return read.error().text;
    };
    CHECK_THAT(why(), Catch::Contains("worker.split_tasks") && Catch::Contains("one task"));
    write_file(run.job_file(), to_toml(job));
    CHECK_THAT(why(), Catch::Contains("worker.split_tasks") && Catch::Contains("as across") &&
                          !Catch::Contains("one task") && !Catch::Contains("ledger.conflicts"));
}

// Two layers of a model without LibTorch, and what a worker would have recorded of them.
ModelDescription two_layers() {
    ModelDescription model;
    model.model = "two";
    model.tasks = {"left", "right"};
    const TaskSet both{3};
    model.tensors = {{"trunk.a.weight", {30, 100}, both}, {"trunk.b.weight", {10, 100}, both}};
    return model;
}

void write_record(const RunDirectory& run) {
    ResolvedRecord record;
    record.losses = {1, 1};
    record.gramians = {{4, -1, 4}, {1, 0.5F, 1}};  // a: opposed by 1 of 4; b: agrees
    record.weights = {{1, 1}};
    write_steps(run, kNames, {record});
}

TEST_CASE("masks: what conflicts least stays shared, up to the part that is wanted") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    write_record(run);
    const auto plan = plan_masks(run, two_layers(), Job{}, 0.625);
    INFO((plan ? "" : plan.error().text));
    REQUIRE(plan.has_value());
    REQUIRE(plan->layers.size() == 2);
    CHECK(plan->layers[0].index == Approx(0.25));
    CHECK(plan->layers[1].index == Approx(0));
    CHECK(plan->layers[1].shared == Approx(1));    // 1,000 of 4,000 parameters
    CHECK(plan->layers[0].shared == Approx(0.5));  // 1,500 of 3,000
    CHECK(plan->index_before == Approx(0.5 / 5));  // G = [[5, −.5], [−.5, 5]]
    CHECK(plan->index_after == Approx(0));         // [[3, 0], [0, 3]]
    REQUIRE(plan->masks.size() == 1);
    CHECK(plan->masks[0].pattern == "trunk.a.*");

    Job masked;
    masked.masks = plan->masks;
    const auto placed = make_plan(two_layers(), masked);
    REQUIRE(placed.has_value());
    std::uint64_t shared = 0;
    for (const Block& block : placed->blocks) shared += block.shared() ? block.elements : 0;
    CHECK(shared == 2500);
    CHECK_THAT(to_text(*plan), Catch::Contains("pattern = \"trunk.a.*\"\nshared = 0.5"));
    CHECK_THAT(to_text(*plan), !Catch::Contains("exclusive"));
    MaskPlan strided = *plan;
    strided.masks[0].exclusive = ExclusiveParts::strided;
    CHECK_THAT(to_text(strided), Catch::Contains("shared = 0.5\nexclusive = \"strided\""));
}

TEST_CASE("masks: layers of another model are refused by name") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    write_record(run);
    ModelDescription other = two_layers();
    other.tensors[1].name = "trunk.c.weight";
    const auto refused = plan_masks(run, other, Job{}, 0.5);
    REQUIRE(refused.has_error());
    CHECK_THAT(refused.error().text, Catch::Contains("trunk.c"));
}

TEST_CASE("plan --sync: the layers whose cosines are the most negative are kept in step") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    write_record(run);
    const auto plan = plan_sync(run, two_layers(), Job{}, 0.5);
    INFO((plan ? "" : plan.error().text));
    REQUIRE(plan.has_value());
    CHECK(plan->layers[0].cosine == Approx(-0.25));
    CHECK(plan->layers[0].negative == 1);
    CHECK(plan->layers[1].cosine == Approx(0.5));
    // The first is taken although it holds 3,000 of 4,000; then no more fit.
    CHECK(plan->patterns == std::vector<std::string>{"trunk.a.*"});
    CHECK(plan_sync(run, two_layers(), Job{}, 1)->patterns.size() == 2);
    CHECK_THAT(to_text(*plan), Catch::Contains("[sync]\nlayers = [\"trunk.a.*\"]"));
}

TEST_CASE("plan --sync: auto is the layers of the run that the job names") {
    const TemporaryFolder folder;
    const RunDirectory run{folder.path()};
    write_record(run);
    Job job;
    job.sync_layers = {"auto"};
    CHECK_THAT(resolve_sync_layers(job, two_layers()).error().text,
               Catch::Contains("sync.measured"));
    job.sync_measured = run.path;
    REQUIRE(resolve_sync_layers(job, two_layers()).has_value());
    CHECK(job.sync_layers == std::vector<std::string>{"trunk.a.*"});
    job.sync_layers = {"auto", "trunk.b.*"};
    CHECK_THAT(resolve_sync_layers(job, two_layers()).error().text, Catch::Contains("alone"));
    job.sync_layers = {"trunk.*"};
    REQUIRE(resolve_sync_layers(job, two_layers()).has_value());
    CHECK(job.sync_layers == std::vector<std::string>{"trunk.*"});
}

}  // namespace
}  // namespace detente::test
