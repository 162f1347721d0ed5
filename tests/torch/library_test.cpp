// A host without LibTorch that loads real and broken model libraries.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "common/partition/plan.h"
#include "worker/engine.h"
#include "worker/engine_computer.h"
#include "worker/resolver.h"

namespace detente {
namespace {

std::string refusal(const std::string& path) {
    const auto engine = load_engine(path, {});
    REQUIRE_FALSE(engine.has_value());
    CHECK(engine.error().code == ErrorCode::bad_model);
    CHECK(engine.error().text.find(std::filesystem::path(path).filename().string()) !=
          std::string::npos);
    return engine.error().text;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// Lines of /proc/self/maps that name the library.
bool mapped(const char* library) {
    std::ifstream maps("/proc/self/maps");
    std::string line;
    while (std::getline(maps, line)) {
        if (has(line, library)) return true;
    }
    return false;
}

TEST_CASE("engine library: what is no model library is refused, with what to do") {
    CHECK(has(refusal("/nowhere/libmodel.so"), "no such file; build the model"));
    CHECK(has(refusal(NO_ENTRY_LIBRARY), "put DETENTE_MODEL(YourModel)"));
    const std::string other = "was built for engine interface " + std::to_string(kEngineAbi + 7);
    CHECK(has(refusal(OTHER_ABI_LIBRARY), other.c_str()));
    const auto text = std::filesystem::temp_directory_path() / "detente_not_a_library.so";
    std::ofstream(text) << "not a library";
    CHECK(has(refusal(text.string()), "cannot be loaded"));
    std::filesystem::remove(text);
}

TEST_CASE("engine library: a host without LibTorch trains and scores MultiFashion") {
    EngineOptions options;
    options.seed = 1;
    const auto loaded = load_engine(MULTIFASHION_LIBRARY, options);
    if (!loaded) FAIL(loaded.error().text);
    CHECK(mapped("libtorch_cpu.so"));
    CHECK_FALSE(mapped("libtorch_cuda.so"));
    Engine& engine = **loaded;
    const ModelDescription& description = engine.description();
    CHECK(description.model == "MultiFashion");
    CHECK(description.tasks == std::vector<std::string>{"left", "right"});
    CHECK(description.training_samples == 60000);
    CHECK(description.test_samples == 10000);
    std::uint64_t parameters = 0;
    for (std::size_t k = 0; k < description.tensors.size(); ++k) {
        parameters += engine.tensor(k).size();
        const bool shared = description.tensors[k].name.starts_with("trunk.");
        CHECK(description.tensors[k].owners.count() == (shared ? 2 : 1));
    }
    CHECK(parameters == 22350);

    // Plain gradient descent on one batch lowers both losses from about ln 10.
    GradientRequest request;
    request.samples.resize(64);
    std::iota(request.samples.begin(), request.samples.end(), 0U);
    request.tasks = {0b11};
    std::vector<double> first;
    std::vector<double> last;
    for (int step = 0; step < 30; ++step) {
        const auto report = engine.gradients(request);
        if (!report) FAIL(report.error().text);
        (step == 0 ? first : last) = report->losses;
        for (std::size_t k = 0; k < description.tensors.size(); ++k) {
            std::vector<float> values(engine.tensor(k).begin(), engine.tensor(k).end());
            for (std::uint32_t t = 0; t < 2; ++t) {
                const float* row = report->gradients->gradient(TaskId{t}, k);
                for (std::size_t e = 0; row && e < values.size(); ++e) values[e] -= .05F * row[e];
            }
            engine.load(k, 0, std::as_bytes(std::span(values)));
        }
    }
    for (int t = 0; t < 2; ++t) {
        CHECK(first[t] == Approx(std::log(10)).epsilon(.05));
        CHECK(last[t] < first[t] - .1);
    }
    const auto scores = engine.evaluate();
    REQUIRE(scores.has_value());
    CHECK((*scores)[0].samples == 10000);
    CHECK((*scores)[0].accuracy > .1);
}

TEST_CASE("engine library: MultiFashion with a residual branch learns its gates in training") {
    Job job;
    job.batch_samples = 16;
    job.rule.name = "sgd";
    job.rule.learning_rate = 0.2;
    job.aggregator.name = "sum";
    job.gate_initial = -1;
    EngineOptions options;
    options.seed = job.seed;
    options.options = {{"residual", "true"}};
    options.gate_initial = job.gate_initial;
    auto loaded = load_engine(MULTIFASHION_LIBRARY, options);
    if (!loaded) FAIL(loaded.error().text);
    const ModelDescription model = (*loaded)->description();
    REQUIRE(model.gates.size() == 2);
    const auto planned = make_plan(model, job);
    REQUIRE(planned.has_value());
    const auto plan = std::make_shared<const Plan>(*planned);
    EngineComputer computer(std::move(*loaded), plan, job.seed);
    REQUIRE(computer.use_methods_of(job).has_value());
    auto resolver = Resolver::create(job, 2);
    REQUIRE(resolver.has_value());
    // What servers would hold, by block.
    std::vector<std::vector<float>> weights;
    std::vector<std::size_t> gates;
    for (const Block& block : plan->blocks) {
        const auto values =
            computer.engine().tensor(block.tensor).subspan(block.offset, block.elements);
        weights.emplace_back(values.begin(), values.end());
        REQUIRE(block.trainable());
        if (!model.tensors[block.tensor].name.starts_with("gates.branch.")) continue;
        gates.push_back(block.id.value);
        CHECK(block.owners.count() == 1);
    }
    REQUIRE(gates.size() == 2);
    const std::atomic<bool> never{false};
    for (std::uint32_t step = 0; step < 4; ++step) {
        GradientWork work;
        for (const Block& block : plan->blocks) {
            const std::span<const float> values(weights[block.id.value]);
            work.weights.push_back(
                {block.id, Epoch{1}, Version{step}, copy_of(std::as_bytes(values)), {}});
        }
        work.batch = {0, step, 1};
        work.batch_samples = job.batch_samples;
        work.random_key = step;
        work.tasks = {0b11};
        resolver->prepare(work);
        auto computed = computer.run(work, never, {});
        if (computed.has_error()) FAIL(computed.error().text);
        auto combine = resolver->resolve(std::move(std::get<GradientOutcome>(*computed)), step);
        REQUIRE(combine.has_value());
        for (const Block& block : plan->blocks) combine->layout.push_back({block.id});
        const auto descend = [&](std::uint32_t i, const Payload& part) {
            std::vector<float> row(part.size() / sizeof(float));
            std::memcpy(row.data(), part.bytes.data(), part.size());
            for (std::size_t e = 0; e < weights[i].size(); ++e) weights[i][e] -= 0.2F * row[e];
        };
        REQUIRE(computer.run(*combine, never, descend).has_value());
        for (const std::size_t gate : gates) {
            REQUIRE(std::isfinite(weights[gate][0]));
            // The first step has none before it to look back to.
            CHECK((weights[gate][0] == -1) == (step == 0));
        }
    }
}

TEST_CASE("engine library: a model that cannot open its data says so and makes no engine") {
    EngineOptions options;
    options.dataset_dir = "/nowhere";
    const auto engine = load_engine(MULTIFASHION_LIBRARY, options);
    REQUIRE_FALSE(engine.has_value());
    CHECK(engine.error().code == ErrorCode::bad_dataset);
    CHECK(has(engine.error().text, "/nowhere/train-labels-idx1-ubyte.gz: no such file"));
}

}  // namespace
}  // namespace detente
