// The models that need no library: their gradients are their losses', their options are checked.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "tests/temporary_folder.h"
#include "worker/builtin/catalog.h"
#include "worker/engine_pool.h"

namespace detente::test {
namespace {

using Options = std::vector<std::pair<std::string, std::string>>;

Result<std::unique_ptr<Engine>> made(const std::string& model, const Options& options,
                                     const std::string& folder = "") {
    EngineOptions engine;
    engine.seed = 5;
    engine.options = options;
    engine.dataset_dir = folder;
    return load_engine(model, engine);
}

std::unique_ptr<Engine> engine_of(const std::string& model, const Options& options,
                                  const std::string& folder = "") {
    auto engine = made(model, options, folder);
    INFO((engine ? "" : engine.error().text));
    REQUIRE(engine.has_value());
    return std::move(*engine);
}

GradientReport report_of(Engine& engine, std::vector<std::uint32_t> samples = {0, 1, 2}) {
    GradientRequest request;
    request.samples = std::move(samples);
    request.random_key = 3;
    for (std::uint32_t t = 0; t < engine.description().tasks.size(); ++t) {
        request.tasks.insert(TaskId{t});
    }
    auto report = engine.gradients(request);
    REQUIRE(report.has_value());
    return std::move(*report);
}

void set(Engine& engine, std::size_t tensor, std::size_t at, float value) {
    engine.load(tensor, at, std::as_bytes(std::span<const float>(&value, 1)));
}

// Central differences of every task's loss in every coordinate.
void require_gradients_of_losses(Engine& engine) {
    const GradientReport report = report_of(engine);
    const ModelDescription& model = engine.description();
    for (std::uint32_t t = 0; t < model.tasks.size(); ++t) {
        for (std::size_t tensor = 0; tensor < model.tensors.size(); ++tensor) {
            const float* row = report.gradients->gradient(TaskId{t}, tensor);
            REQUIRE((row != nullptr) == model.tensors[tensor].owners.contains(TaskId{t}));
            if (row == nullptr) continue;
            for (std::size_t i = 0; i < model.tensors[tensor].elements(); ++i) {
                constexpr float kStep = 1.0F / 64;
                const float value = engine.tensor(tensor)[i];
                set(engine, tensor, i, value + kStep);
                const double above = report_of(engine).losses[t];
                set(engine, tensor, i, value - kStep);
                const double below = report_of(engine).losses[t];
                set(engine, tensor, i, value);
                REQUIRE(row[i] == Approx((above - below) / (2 * kStep)).margin(2e-3));
            }
        }
    }
}

const char* const kFlowers =
    "a,b,kind,size\n1,2,0,1\n2,1,1,0\n3,5,2,1\n0,1,0,0\n5,4,2,1\n4,4,1,0\n";

TEST_CASE("builtin: gradients are those of the losses") {
    for (const char* matrix : {"diagonal", "tridiagonal"}) {
        const auto quadratic =
            engine_of("builtin:quadratic",
                      {{"matrix", matrix}, {"dimension", "9"}, {"tensors", "2"}, {"tasks", "3"}});
        require_gradients_of_losses(*quadratic);
    }
    const TemporaryFolder folder;
    write_file(folder / "flowers.csv", kFlowers);
    const auto logistic = engine_of(
        "builtin:logistic", {{"file", "flowers.csv"}, {"targets", "kind,size"}, {"l2", "0.1"}},
        folder.path());
    CHECK(logistic->description().tasks == std::vector<std::string>{"kind", "size"});
    CHECK(logistic->description().training_samples == 5);
    for (std::size_t i = 0; i < 4; ++i) set(*logistic, 0, i, 0.3F * static_cast<float>(i));
    require_gradients_of_losses(*logistic);
}

TEST_CASE("builtin:quadratic: noise is one draw for all coordinates, or one each") {
    for (const bool for_all : {true, false}) {
        const Options options = {
            {"dimension", "50"}, {"noise", "0.5"}, {"noise_draw", for_all ? "all" : "coordinate"}};
        const auto noisy = engine_of("builtin:quadratic", options);
        const GradientReport report = report_of(*noisy);
        const float* row = report.gradients->gradient(TaskId{0}, 0);
        // From w = 1 towards 0 along curvature 1 the slope is 1.
        double sum = 0;
        bool same = true;
        for (std::size_t i = 0; i < 50; ++i) {
            sum += std::abs(row[i] - 1);
            same = same && row[i] == row[0];
        }
        CHECK(sum > 0);
        CHECK(same == for_all);
    }
}

TEST_CASE("builtin:quadratic: its score is the share of the first loss that is gone") {
    const auto quadratic = engine_of("builtin:quadratic", {{"dimension", "1"}});
    CHECK(quadratic->evaluate()->front().accuracy == 0);
    set(*quadratic, 0, 0, 0.5F);
    CHECK(quadratic->evaluate()->front().accuracy == Approx(0.75));
    CHECK(quadratic->evaluate()->front().loss == Approx(0.125));
    set(*quadratic, 0, 0, -7);
    CHECK(quadratic->evaluate()->front().accuracy == 0);
}

TEST_CASE("builtin: an unknown model, option or value is refused, and the nearest named") {
    CHECK_THAT(made("builtin:quadratics", {}).error().text,
               Catch::Contains("did you mean builtin:quadratic?"));
    CHECK_THAT(made("builtin:quadratic", {{"dimensions", "3"}}).error().text,
               Catch::Contains("the nearest is 'dimension'"));
    CHECK_THAT(made("builtin:quadratic", {{"dimension", "0"}}).error().text,
               Catch::Contains("takes a number from 1 to"));
    CHECK_THAT(made("builtin:quadratic", {{"matrix", "dense"}}).error().text,
               Catch::Contains("one of diagonal, tridiagonal"));
    const TemporaryFolder folder;
    CHECK_THAT(made("builtin:logistic", {}, folder.path()).error().text,
               Catch::Contains("data.csv: cannot read it"));
    write_file(folder / "data.csv", std::string(kFlowers) + "1,x,0,1\n");
    CHECK_THAT(made("builtin:logistic", {}, folder.path()).error().text,
               Catch::Contains("data.csv:8: expected 4 numbers"));
    CHECK_THAT(made("builtin:logistic", {{"targets", "colour"}}, folder.path()).error().text,
               Catch::Contains("data.csv:8"));
    write_file(folder / "data.csv", kFlowers);
    CHECK_THAT(made("builtin:logistic", {{"targets", "colour"}}, folder.path()).error().text,
               Catch::Contains("has no column 'colour'"));
}

TEST_CASE("builtin: representation space is refused, naming the key") {
    EngineOptions options;
    options.representation = true;
    const auto engine = load_engine("builtin:quadratic", options);
    REQUIRE(engine.has_error());
    CHECK_THAT(engine.error().text, Catch::Contains("conflict.space = \"representation\"") &&
                                        Catch::Contains("builtin:quadratic gives no gradients"));
}

TEST_CASE("engine pool: what a worker computes is a function of its own weights") {
    const Options options = {{"dimension", "4"}};
    auto pool = EnginePool::create(1, [&] { return made("builtin:quadratic", options); });
    REQUIRE(pool.has_value());
    const auto one = (*pool)->engine();
    const auto other = (*pool)->engine();
    set(*one, 0, 2, 9);
    CHECK(report_of(*other).losses.front() == 2);  // ½·4·1²
    CHECK(report_of(*one).losses.front() == Approx(1.5 + 40.5));
    CHECK(report_of(*other).losses.front() == 2);
    CHECK(other->tensor(0)[2] == 1);
    CHECK(one->tensor(0)[2] == 9);
}

}  // namespace
}  // namespace detente::test
