// A host without LibTorch that loads real and broken model libraries.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "worker/engine.h"

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
