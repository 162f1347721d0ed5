// Whole runs on virtual time under masks.
#include <algorithm>
#include <cmath>

#include "launch/checkpoint_services.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

const std::string kStrided = R"(
[[mask]]
pattern = "w*"
shared = 0.2
exclusive = "strided"
[simulate]
thorough = true
)";

struct Ended {
    Outcome outcome;
    Error refused;
    Books books;
};

Ended run_in(const std::string& directory, const Job& job, const std::string& resume = "") {
    Ended ended;
    SimulationSetup setup = setup_of(job, directory);
    setup.resume = resume;
    auto simulation = Simulation::create(std::move(setup));
    if (simulation.has_error()) {
        ended.refused = simulation.error();
        return ended;
    }
    ended.outcome = (*simulation)->run([] { return std::nullopt; });
    ended.books = total_books((*simulation)->view());
    return ended;
}

// Largest slope of each kind, at the weights of a merged checkpoint: of a task's loss by elements
// of its own, by the other's, and of both losses together by what they share.
struct Slopes {
    double own = 0;
    double other = 0;
    double shared = 0;
};

Slopes slopes_at(const Job& job, const std::string& model_file) {
    auto engine = load_engine(job.model_library, engine_options_of(job));
    REQUIRE(engine.has_value());
    REQUIRE(load_weights(**engine, model_file).has_value());
    GradientRequest request;
    request.samples = {0};
    request.tasks.bits = 3;
    const auto report = (*engine)->gradients(request);
    REQUIRE(report.has_value());
    Slopes slopes;
    const ModelDescription& model = (*engine)->description();
    for (std::size_t tensor = 0; tensor < model.tensors.size(); ++tensor) {
        const float* rows[] = {report->gradients->gradient(TaskId{0}, tensor),
                               report->gradients->gradient(TaskId{1}, tensor)};
        const std::uint64_t shared = 2;  // of the 10 elements of each
        REQUIRE(model.tensors[tensor].elements() == 10);
        for (std::uint64_t e = 0; e < 10; ++e) {
            if (e < shared) {
                slopes.shared = std::max(slopes.shared, std::fabs(double{rows[0][e]} + rows[1][e]));
                continue;
            }
            const std::uint64_t owner = (e - shared) % 2;
            slopes.own = std::max(slopes.own, std::fabs(double{rows[owner][e]}));
            slopes.other = std::max(slopes.other, std::fabs(double{rows[1 - owner][e]}));
        }
    }
    return slopes;
}

TEST_CASE("masks: under a strided one each task moves its own elements and all move the shared") {
    const TemporaryFolder folder;
    const Job job = job_of(kQuadraticJob + kStrided,
                           {"conflict.method=sum", "model.options.noise=0", "data.epochs=2"});
    const Ended run = run_in(folder / "run", job);
    INFO(run.refused.text << run.outcome.error.text);
    REQUIRE(run.refused.text.empty());
    REQUIRE_FALSE(run.outcome.failed);
    CHECK(run.books.balance("the run").has_value());
    const Slopes slopes = slopes_at(job, folder / "run/checkpoints/1/model.safetensors");
    CHECK(slopes.own < 1e-3);
    CHECK(slopes.shared < 1e-3);
    CHECK(slopes.other > 0.1);
}

TEST_CASE("masks: one worker gives the same weights strided on one shard and on four") {
    std::vector<std::uint64_t> digests;
    for (const char* servers : {"servers=1", "servers=4"}) {
        for (const char* method : {"conflict.method=pcgrad", "conflict.method=moco"}) {
            const SimulatedRun run =
                simulate(kQuadraticJob + kStrided, {servers, method, "workers=1"});
            require_whole(run);
            digests.push_back(run.figures.digest);
        }
    }
    CHECK(digests[0] == digests[2]);
    CHECK(digests[1] == digests[3]);
    CHECK(digests[0] != digests[1]);
}

TEST_CASE("masks: a strided run goes on with other servers and not with runs in place of strides") {
    const TemporaryFolder folder;
    const auto job = [](const std::vector<std::string>& overrides, const std::string& mask) {
        return job_of(kQuadraticJob + mask, overrides);
    };
    const Ended first = run_in(folder / "first", job({}, kStrided));
    REQUIRE_FALSE(first.outcome.failed);
    const Ended longer =
        run_in(folder / "longer", job({"servers=3", "data.epochs=2"}, kStrided), folder / "first");
    INFO(longer.refused.text << longer.outcome.error.text);
    REQUIRE(longer.refused.text.empty());
    CHECK_FALSE(longer.outcome.failed);
    std::string runs = kStrided;
    runs.replace(runs.find("strided"), 7, "runs");
    const Ended other = run_in(folder / "other", job({"data.epochs=2"}, runs), folder / "first");
    CHECK(other.refused.code == ErrorCode::bad_checkpoint);
    CHECK_THAT(other.refused.text, Catch::Contains("dealt out otherwise"));
}

// Of three tasks two share w0; w1 is the third's alone.
const std::string kApart = R"(
[[task]]
name = "task0"
exclude = ["w1"]
[[task]]
name = "task1"
exclude = ["w1"]
[[task]]
name = "task2"
exclude = ["w0"]
)";
// The third is kept off w0 only.
const std::string kKeptOff = R"(
[[task]]
name = "task2"
exclude = ["w0"]
)";

TEST_CASE(
    "masks: a tensor that two of three tasks share is trained under methods that weigh them") {
    for (const char* method : {"mgda", "modo", "moco", "cagrad", "nash"}) {
        for (const auto& [owners, scope] :
             {std::pair{&kApart, "global"}, std::pair{&kKeptOff, "layer"},
              std::pair{&kKeptOff, "block"}}) {
            CAPTURE(method, scope);
            const TemporaryFolder folder;
            const Job job = job_of(
                kQuadraticJob + *owners,
                {std::string("conflict.method=") + method, std::string("conflict.scope=") + scope,
                 "workers=1", "model.options.tasks=3", "model.options.tensors=2",
                 "model.options.start=4", "model.options.noise=0"});
            const Ended run = run_in(folder / "run", job);
            INFO(run.refused.text << run.outcome.error.text);
            REQUIRE(run.refused.text.empty());
            REQUIRE_FALSE(run.outcome.failed);
            CHECK(run.books.balance("the run").has_value());
            auto engine = load_engine(job.model_library, engine_options_of(job));
            REQUIRE(engine.has_value());
            REQUIRE(
                load_weights(**engine, folder / "run/checkpoints/1/model.safetensors").has_value());
            // Tasks' optima are draws of N(0, 1) around 0.
            double sum = 0;
            for (const float w : (*engine)->tensor(0)) sum += double{w} / 20;
            REQUIRE((*engine)->tensor(0).size() == 20);
            CHECK(sum < 2);
        }
    }
}

TEST_CASE("masks: tasks that share nothing have no cosine and are not averaged in as one of zero") {
    const SimulatedRun run = simulate(
        kQuadraticJob + kApart,
        {"conflict.method=sum", "model.options.tasks=3", "model.options.tensors=2", "workers=2"});
    require_whole(run);
    REQUIRE(run.summary.pairs.size() == 1);
    CHECK(run.summary.pairs[0].a == "task0");
    CHECK(run.summary.pairs[0].b == "task1");
    REQUIRE(run.summary.mean_cosine.has_value());
    CHECK(*run.summary.mean_cosine == Approx(run.summary.pairs[0].mean));
    CHECK(std::abs(run.summary.pairs[0].mean) > 1e-3);
    REQUIRE(run.summary.cosines.size() == 3);
    CHECK(run.summary.cosines[0][1] == Approx(run.summary.pairs[0].mean));
    CHECK(std::isnan(run.summary.cosines[0][2]));
    CHECK(std::isnan(run.summary.cosines[2][1]));
    const boost::json::value written = boost::json::parse(to_json(run.summary));
    CHECK(written.at("conflict").at("cosines").at(0).at(2).is_null());
    CHECK(written.at("conflict").at("pairs").at("task0").as_object().size() == 1);
}

TEST_CASE("masks: where no two tasks share anything there are no cosines at all") {
    const SimulatedRun run = simulate(kQuadraticJob + "[[mask]]\npattern = \"w*\"\nshared = 0\n",
                                      {"conflict.method=mgda"});
    require_whole(run);
    CHECK_FALSE(run.summary.mean_cosine.has_value());
    CHECK(run.summary.pairs.empty());
    CHECK(run.summary.cosines.empty());
    CHECK_FALSE(run.summary.conflict_share.has_value());
}

}  // namespace
}  // namespace detente::test
