// Every conflict method in a worker: what it is given there, what leaves it, in whole clusters.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "common/conflict/dense_aggregation.h"
#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

using Rows = DenseRows;

ClusterOptions three_tasks(const std::string& method) {
    ClusterOptions options;
    options.job.servers = 2;
    options.job.workers = 2;
    options.job.batch_samples = 16;
    options.job.rule.name = "sgd";
    options.job.rule.learning_rate = 0.02;
    options.job.policy.name = "async";
    options.job.policy.parameters = {};
    options.job.aggregator = {method, {}};
    options.model.tasks = 3;
    options.model.samples = 320;
    return options;
}

// One worker's compute thread, by hand.
struct Bench {
    explicit Bench(const ClusterOptions& with)
        : options(with),
          engine(with.model),
          plan(std::make_shared<Plan>(*make_plan(engine.description(), with.job))),
          computer(std::make_unique<QuadraticEngine>(with.model), plan, with.job.seed),
          aggregator(*make_aggregator(with.job.aggregator)) {}

    std::shared_ptr<GradientOutcome> gradients(std::uint64_t key) {
        GradientWork work;
        work.batch = {0, 0, 1};
        work.batch_samples = options.job.batch_samples;
        work.random_key = key;
        work.tasks.bits = 7;
        work.aggregator = aggregator;
        work.scope = options.job.conflict_scope;
        auto result = computer.run(work, never, {});
        REQUIRE(result.has_value());
        return std::make_shared<GradientOutcome>(std::move(std::get<GradientOutcome>(*result)));
    }
    // The trunk of the combined gradient.
    std::vector<float> combined(const GradientOutcome& outcome,
                                std::vector<std::vector<double>> weights, double clip_norm = 0) {
        CombineWork work;
        work.gradients = outcome.gradients;
        work.weights = weights.front();
        work.group_weights = std::move(weights);
        work.aggregator = aggregator;
        work.random_key = 5;
        work.clip_norm = clip_norm;
        work.layout.emplace_back();
        for (const Block& block : plan->blocks) work.layout[0].push_back(block.id);
        std::vector<float> all;
        const auto keep = [&](std::uint32_t, const Payload& payload) {
            all.resize(payload.size() / sizeof(float));
            std::memcpy(all.data(), payload.bytes.data(), payload.size());
        };
        REQUIRE(computer.run(work, never, keep).has_value());
        return all;
    }
    // The rows of a tensor's owners for this key; tensor 0 is the trunk.
    Rows rows(std::uint64_t key, std::size_t tensor = 0) {
        GradientRequest request;
        request.random_key = key;
        const auto report = engine.gradients(request);
        Rows all;
        for (std::uint32_t task = 0; task < options.model.tasks; ++task) {
            const float* row = report->gradients->gradient(TaskId{task}, tensor);
            if (row != nullptr) all.emplace_back(row, row + engine.tensor(tensor).size());
        }
        return all;
    }

    ClusterOptions options;
    QuadraticEngine engine;
    std::shared_ptr<const Plan> plan;
    EngineComputer computer;
    std::shared_ptr<const Aggregator> aggregator;
    std::atomic<bool> never{false};
};

AggregatorInput input_of(const GradientOutcome& outcome, std::size_t group, std::uint64_t key) {
    return {&outcome.groups[group].gramian, outcome.losses, key, &outcome.groups[group].cross,
            outcome.groups[group].excess};
}

}  // namespace

TEST_CASE("conflict: a worker's step is the method on whole rows, over steps with state") {
    for (const std::string& method : aggregator_names()) {
        CAPTURE(method);
        Bench bench(three_tasks(method));
        DenseAggregation dense(bench.aggregator, 1);
        AggregatorState state = bench.aggregator->initial_state(3);
        const AggregatorNeeds needs = bench.aggregator->needs();
        for (std::uint64_t step = 0; step < 4; ++step) {
            const auto outcome = bench.gradients(100 + step);
            // As `dense` mixes it of its seed: so rlw draws the same weights on both sides, and
            // pcgrad and gradvac the same visits.
            const std::uint64_t key = random_key(1, Purpose::aggregator, {step});
            const auto output = bench.aggregator->weights(input_of(*outcome, 0, key), state);
            REQUIRE(output.has_value());
            const std::vector<float> found = bench.combined(*outcome, {output->weights});

            DenseStep by_hand{bench.rows(100 + step), outcome->losses, {}};
            if (needs.second_batch) {
                by_hand.second = bench.rows(random_key(100 + step, Purpose::task_stream, {1}));
            }
            const auto expected = dense.step(by_hand);
            REQUIRE(expected.has_value());
            std::vector<double> result = expected->result;
            if (needs.second_batch) {  // of both halves
                for (std::size_t k = 0; k < result.size(); ++k) {
                    result[k] = 0;
                    for (std::size_t i = 0; i < 3; ++i) {
                        result[k] += expected->output.weights[i] *
                                     (by_hand.rows[i][k] + by_hand.second[i][k]) / 2;
                    }
                }
            }
            if (needs.coordinates) {
                std::vector<const double*> starts;
                for (const auto& row : by_hand.rows) starts.push_back(row.data());
                const std::uint64_t of_tensor = random_key(5, Purpose::aggregator, {0});
                bench.aggregator->combine(CoordinateRows<double>{starts, of_tensor, 0, {}}, result);
            }
            for (std::size_t k = 0; k < result.size(); ++k) {
                REQUIRE(found[k] == Approx(result[k]).margin(2e-4));
            }
        }
    }
}

TEST_CASE("conflict: a computation that is cancelled leaves no trace in the averages") {
    Bench bench(three_tasks("moco"));
    Bench other(three_tasks("moco"));
    const std::vector<double> third(3, 1.0 / 3);
    bench.gradients(1);  // never combined
    const auto first = bench.gradients(2);
    const auto alone = other.gradients(2);
    CHECK(bench.combined(*first, {third}) == other.combined(*alone, {third}));
}

TEST_CASE("conflict: scopes give each layer or block weights of its own") {
    for (const ConflictScope scope : {ConflictScope::layer, ConflictScope::block}) {
        ClusterOptions options = three_tasks("mgda");
        options.job.conflict_scope = scope;
        options.job.block_bytes = 4096;
        options.model.trunk_elements = 3000;
        Bench bench(options);
        const auto outcome = bench.gradients(1);
        const std::size_t groups = scope == ConflictScope::block ? 3 : 1;
        REQUIRE(outcome->groups.size() == groups);
        std::vector<std::vector<double>> weights;
        for (std::size_t group = 0; group < groups; ++group) {
            AggregatorState state;
            weights.push_back(
                bench.aggregator->weights(input_of(*outcome, group, 1), state)->weights);
        }
        const std::vector<float> found = bench.combined(*outcome, weights);
        const Rows rows = bench.rows(1);
        const std::size_t size = scope == ConflictScope::block ? 1024 : 3000;
        for (std::size_t group = 0; group < groups; ++group) {
            Rows part;
            const std::size_t first = group * size;
            const std::size_t last = std::min<std::size_t>(3000, first + size);
            for (const auto& row : rows) {
                part.emplace_back(row.begin() + static_cast<std::ptrdiff_t>(first),
                                  row.begin() + static_cast<std::ptrdiff_t>(last));
            }
            DenseAggregation dense(bench.aggregator, 1);
            const auto expected = dense.step({part, {}, {}});
            for (std::size_t k = first; k < last; ++k) {
                REQUIRE(found[k] == Approx(expected->result[k - first]).margin(1e-4));
            }
        }
        // What is reported is of all shared blocks, whatever the scope.
        CHECK(outcome->gramian.at(0, 1) == Approx(gramian_of(rows).at(0, 1)).epsilon(1e-6));
    }
}

TEST_CASE("conflict: a layer that some tasks own is resolved among those") {
    for (const ConflictScope scope : {ConflictScope::layer, ConflictScope::block}) {
        for (const char* method : {"mgda", "cagrad", "upgrad", "nash", "moco"}) {
            CAPTURE(method);
            ClusterOptions options = three_tasks(method);
            options.job.conflict_scope = scope;
            options.model.neck_elements = 30;
            Bench bench(options);
            const auto outcome = bench.gradients(1);
            REQUIRE(outcome->groups.size() == 2);
            CHECK(outcome->groups[0].members == TaskSet{0b111});
            CHECK(outcome->groups[1].members == TaskSet{0b011});
            auto resolver = Resolver::create(options.job, 3);
            REQUIRE(resolver.has_value());
            auto work = resolver->resolve(GradientOutcome(*outcome), 1);
            REQUIRE(work.has_value());
            work->layout = {{BlockId{0}}, {BlockId{1}}};
            std::vector<std::vector<float>> found(2);
            const auto keep = [&](std::uint32_t part, const Payload& payload) {
                found[part].resize(payload.size() / sizeof(float));
                std::memcpy(found[part].data(), payload.bytes.data(), payload.size());
            };
            REQUIRE(bench.computer.run(*work, bench.never, keep).has_value());
            for (std::size_t tensor = 0; tensor < 2; ++tensor) {
                CAPTURE(tensor);
                DenseAggregation dense(bench.aggregator, 1);
                const auto expected = dense.step({bench.rows(1, tensor), {}, {}});
                REQUIRE(expected.has_value());
                REQUIRE(found[tensor].size() == expected->result.size());
                for (std::size_t k = 0; k < found[tensor].size(); ++k) {
                    REQUIRE(found[tensor][k] == Approx(expected->result[k]).margin(1e-4));
                }
            }
        }
    }
}

TEST_CASE("conflict: every method moves a layer that some of the tasks own under every scope") {
    for (const ConflictScope scope : {ConflictScope::global, ConflictScope::layer}) {
        for (const std::string& method : aggregator_names()) {
            const auto made = make_aggregator({method, {}});
            REQUIRE(made.has_value());
            const bool alone = scope == ConflictScope::global;
            // krum needs three tasks in a layer.
            if (!alone && ((*made)->needs().coordinates || method == "krum")) continue;
            CAPTURE(method, alone);
            ClusterOptions options = three_tasks(method);
            options.job.conflict_scope = scope;
            options.job.clip_norm = 3;
            options.model.neck_elements = 30;
            Cluster cluster(options);
            REQUIRE(cluster.run());
            CHECK(cluster.books().in_flight == 0);
            const QuadraticEngine first(options.model);
            const std::vector<float>& neck = cluster.weights_by_block().at(BlockId{1});
            REQUIRE(neck.size() == 30);
            CHECK(neck[0] != first.tensor(1)[0]);
            CHECK(neck[29] != first.tensor(1)[29]);
            for (const float w : neck) REQUIRE(std::isfinite(w));
        }
    }
}

TEST_CASE("conflict: the global norm is clipped for methods by coordinates too") {
    Bench bench(three_tasks("graddrop"));
    const auto outcome = bench.gradients(1);
    const auto norm = [](const std::vector<float>& values) {
        double sum = 0;
        for (const float x : values) sum += double(x) * x;
        return std::sqrt(sum);
    };
    const std::vector<float> whole = bench.combined(*outcome, {{}});
    REQUIRE(norm(whole) > 1);
    const std::vector<float> clipped = bench.combined(*outcome, {{}}, 0.5);
    CHECK(norm(clipped) == Approx(0.5).epsilon(1e-5));
    CHECK(clipped[0] / whole[0] == Approx(clipped[7] / whole[7]).epsilon(1e-4));
}

TEST_CASE("conflict: every method trains a simulated job whose books balance") {
    for (const std::string& method : aggregator_names()) {
        CAPTURE(method);
        ClusterOptions options = three_tasks(method);
        options.job.clip_norm = 3;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        const std::uint64_t batches = options.model.samples / options.job.batch_samples;
        CHECK(cluster.books().applied == batches * cluster.plan().blocks.size());
        CHECK(cluster.books().in_flight == 0);
        for (const float w : cluster.weights()) REQUIRE(std::isfinite(w));
    }
}

TEST_CASE("conflict: every method gives the same bits on 1, 2, 4 and 8 shards") {
    for (const std::string& method : aggregator_names()) {
        CAPTURE(method);
        std::vector<float> first;
        for (const std::uint32_t shards : {1U, 2U, 4U, 8U}) {
            ClusterOptions options = three_tasks(method);
            options.job.workers = 1;
            options.job.servers = shards;
            options.job.block_bytes = 4096;
            options.model.trunk_elements = 9000;
            options.model.samples = 96;
            Cluster cluster(options);
            REQUIRE(cluster.run());
            if (first.empty()) first = cluster.weights();
            CHECK(cluster.weights() == first);
        }
    }
}

TEST_CASE("conflict: steps with NaN are skipped where the job says so, and others go on") {
    ClusterOptions options = three_tasks("upgrad");
    options.job.on_not_finite = OnNotFinite::skip;
    options.model_of_worker[1] = options.model;
    options.model_of_worker[1].gradient_factor = std::nanf("");
    Cluster cluster(options);
    REQUIRE(cluster.run());
    CHECK_FALSE(cluster.coordinator().last.at(node_of(WorkerId{1})).failed);
    CHECK(cluster.finished_batches == 20);
    CHECK(cluster.books().in_flight == 0);
    CHECK(cluster.books().applied < 20 * cluster.plan().blocks.size());
    CHECK(cluster.books().applied > 0);
    for (const float w : cluster.weights()) REQUIRE(std::isfinite(w));
}

TEST_CASE("conflict: a step with NaN stops the worker otherwise, naming the task") {
    ClusterOptions options = three_tasks("upgrad");
    options.job.workers = 1;
    options.model.gradient_factor = std::nanf("");
    Cluster cluster(options);
    REQUIRE(cluster.run());
    const Stopped& last = cluster.coordinator().last.at(node_of(WorkerId{0}));
    CHECK(last.failed);
    CHECK(last.code == ErrorCode::not_finite);
    CHECK_THAT(last.error, Catch::Contains("task 0"));
    CHECK(cluster.books().applied == 0);
}

TEST_CASE(
    "conflict: NaN in a block that one task owns stops the worker before anything is pushed") {
    for (const double clip_norm : {0.0, 1.0}) {
        ClusterOptions options = three_tasks("upgrad");
        options.job.workers = 1;
        options.job.clip_norm = clip_norm;
        options.model.head_factor = std::nanf("");
        Cluster cluster(options);
        REQUIRE(cluster.run());
        const Stopped& last = cluster.coordinator().last.at(node_of(WorkerId{0}));
        CHECK(last.failed);
        CHECK(last.code == ErrorCode::not_finite);
        CHECK_THAT(last.error, Catch::Contains("tasks in order: 0 task0, 1 task1") &&
                                   Catch::Contains("task 0 has NaN or Inf in a block of its own"));
        CHECK(cluster.books().applied == 0);
    }
}

TEST_CASE("conflict: of skipped steps nothing enters the figures") {
    ClusterOptions options = three_tasks("upgrad");
    options.job.on_not_finite = OnNotFinite::skip;
    options.model_of_worker[1] = options.model;
    options.model_of_worker[1].gradient_factor = std::numeric_limits<float>::infinity();
    Cluster cluster(options);
    REQUIRE(cluster.run());
    const Status& status = cluster.coordinator().last.at(node_of(WorkerId{1})).last;
    REQUIRE_FALSE(status.losses.empty());
    for (const double loss : status.losses) CHECK(std::isfinite(loss));
    for (const auto& [name, value] : status.values) {
        INFO(name);
        CHECK(std::isfinite(value));
    }
}

TEST_CASE("conflict: steps without a solution of the method's own are counted and told once") {
    for (const bool zero : {false, true}) {
        ClusterOptions options = three_tasks("mgda");
        options.job.workers = 1;
        options.model.noise = 0;
        options.model.trunk_elements = 1;  // which is to be the same for all tasks
        options.model.gradient_factor = zero ? 0 : 1;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        double steps = 0;
        double degenerate = 0;
        for (const auto& [name, value] :
             cluster.coordinator().last.at(node_of(WorkerId{0})).last.values) {
            if (name == "steps") steps = value;
            if (name == "steps.degenerate") degenerate = value;
        }
        CHECK(steps == 20);
        CHECK(degenerate == steps);
        std::string told;
        for (const std::string& line : cluster.world().log()) {
            if (line.find("conflict.method 'mgda'") == std::string::npos) continue;
            CHECK(told.empty());
            told = line;
        }
        CHECK_THAT(told, Catch::Contains(zero ? "every gradient is zero" : "'degenerate'") &&
                             Catch::Contains("step 1:"));
    }
}

TEST_CASE("conflict: steps that a method has solved are not counted as degenerate") {
    Cluster cluster(three_tasks("mgda"));
    REQUIRE(cluster.run());
    for (const std::uint32_t worker : {0U, 1U}) {
        for (const auto& [name, value] :
             cluster.coordinator().last.at(node_of(WorkerId{worker})).last.values) {
            if (name == "steps.degenerate") CHECK(value == 0);
        }
    }
}

TEST_CASE("conflict: skipping works where the lead decides steps too") {
    ClusterOptions options = three_tasks("mgda");
    options.job.policy.name = "bsp";
    options.job.on_not_finite = OnNotFinite::skip;
    options.model_of_worker[1] = options.model;
    options.model_of_worker[1].gradient_factor = std::nanf("");
    Cluster cluster(options);
    REQUIRE(cluster.run());
    CHECK(cluster.finished_batches == 20);
    CHECK(cluster.books().in_flight == 0);
}

TEST_CASE("conflict: a parameter for another number of tasks is found when the worker is made") {
    ClusterOptions options = three_tasks("constant");
    options.job.aggregator.parameters = {{"weights", "1,2"}};
    WorkerSetup setup;
    const QuadraticEngine engine(options.model);
    setup.job = std::make_shared<Job>(options.job);
    setup.plan = std::make_shared<Plan>(*make_plan(engine.description(), options.job));
    setup.tasks = engine.description().tasks;
    const auto worker = Worker::create(std::move(setup));
    REQUIRE(worker.has_error());
    CHECK(worker.error().code == ErrorCode::bad_job);
}

}  // namespace detente::test
