// What a worker keeps as vectors, to a file and back.
#include "worker/kept_vectors.h"

#include <catch2/catch.hpp>

#include "common/runtime/disk.h"
#include "common/safetensors.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

ModelDescription model() {
    ModelDescription model;
    model.model = "two";
    model.tasks = {"a", "b"};
    model.tensors = {{"trunk.w", {3000}, TaskSet{3}}, {"heads.a.w", {7}, TaskSet{1}}};
    return model;
}

Plan plan_of(std::uint64_t block_bytes = 2 * 4096) {
    Job job;
    job.block_bytes = block_bytes;
    auto plan = make_plan(model(), job);
    REQUIRE(plan.has_value());
    return *plan;
}

// One vector per shared block and task, and two gates, of which the first passes nothing.
KeptVectors made(const Plan& plan) {
    TaskVectors tasks(plan.blocks.size() * 2);
    for (const Block& block : plan.blocks) {
        if (!block.shared()) continue;
        for (std::size_t task = 0; task < 2; ++task) {
            std::vector<float>& own = tasks[block.id.value * 2 + task];
            for (std::uint64_t e = 0; e < block.elements; ++e) {
                own.push_back(static_cast<float>(block.id.value * 10000 + e) + 0.25F * task);
            }
        }
    }
    const GateVectors gates = {{}, {{1, 2, 3}, {-0.0F, 5}}};
    return {"moco", std::make_shared<const TaskVectors>(std::move(tasks)),
            std::make_shared<const GateVectors>(gates)};
}

std::string stored(const TemporaryFolder& folder, const KeptVectors& kept) {
    const std::string path = folder / "worker-0.safetensors";
    REQUIRE(write_whole_file({path, *to_pieces(kept, 2)}).has_value());
    return path;
}

void require_bad(const Result<KeptVectors>& read, const std::string& text) {
    REQUIRE(read.has_error());
    CHECK(read.error().code == ErrorCode::bad_checkpoint);
    CHECK_THAT(read.error().text, Catch::Contains(text));
}

TEST_CASE("kept vectors: they come back from their file as they were") {
    const TemporaryFolder folder;
    const Plan plan = plan_of();
    REQUIRE(plan.blocks.size() == 3);
    const KeptVectors kept = made(plan);
    const auto read = read_kept(stored(folder, kept), plan, 2);
    REQUIRE(read.has_value());
    CHECK(read->method == "moco");
    REQUIRE(read->tasks != nullptr);
    CHECK(*read->tasks == *kept.tasks);
    REQUIRE(read->gates != nullptr);
    CHECK(*read->gates == *kept.gates);
}

// Of the blocks from the second on; the last has counted other gradients.
std::shared_ptr<const HalfVectors> made_halves(const Plan& plan) {
    auto halves = std::make_shared<HalfVectors>();
    halves->blocks.resize(plan.blocks.size());
    for (std::size_t id = 1; id < plan.blocks.size(); ++id) {
        std::vector<float> values(plan.blocks[id].elements, -0.5F);
        values.back() = static_cast<float>(id);
        halves->blocks[id] = {
            "easgd", 7 + id / 2, {std::make_shared<const std::vector<float>>(std::move(values))}};
    }
    return halves;
}

TEST_CASE("kept vectors: those of a policy's half come back with how often it has run") {
    const TemporaryFolder folder;
    const Plan plan = plan_of();
    KeptVectors kept = made(plan);
    kept.halves = made_halves(plan);
    const std::string path = stored(folder, kept);
    const auto read = read_kept(path, plan, 2);
    REQUIRE(read.has_value());
    CHECK(*read->tasks == *kept.tasks);
    CHECK(*read->gates == *kept.gates);
    REQUIRE(read->halves != nullptr);
    REQUIRE(read->halves->blocks.size() == plan.blocks.size());
    CHECK(read->halves->blocks[0].vectors.empty());
    for (std::size_t id = 1; id < plan.blocks.size(); ++id) {
        const HalfVectors::OfBlock& own = read->halves->blocks[id];
        CHECK(own.policy == "easgd");
        CHECK(own.computed == 7 + id / 2);
        REQUIRE(own.vectors.size() == 1);
        CHECK(*own.vectors[0] == *kept.halves->blocks[id].vectors[0]);
    }
    require_bad(
        read_kept(stored(folder, {"sum", nullptr, nullptr, made_halves(plan)}), plan_of(4096), 2),
        "'block.1.half.easgd.0': expected");
}

TEST_CASE("kept vectors: what a half does after they were taken does not change them") {
    const Plan plan = plan_of();
    Job job;
    job.block_bytes = 2 * 4096;
    job.policy.name = "dana_slim";
    auto halves = WorkerHalves::create(job, plan);
    REQUIRE(halves.has_value());
    REQUIRE(*halves != nullptr);
    CHECK((*halves)->kept() == nullptr);  // nothing computed
    const BlockId id{0};
    const auto pushed = [&](WorkerHalves& of, float gradient) {
        std::vector<float> values(plan.blocks[0].elements, gradient);
        of.before_push(id, values);
        return values;
    };
    pushed(**halves, 1);
    const auto kept = (*halves)->kept();
    REQUIRE(kept != nullptr);
    CHECK(kept->blocks[1].vectors.empty());
    const std::vector<float> then = *kept->blocks[0].vectors[0];
    CHECK(then == std::vector<float>(plan.blocks[0].elements, 1));
    const std::vector<float> second = pushed(**halves, 3);
    CHECK(*kept->blocks[0].vectors[0] == then);

    auto again = WorkerHalves::create(job, plan);
    REQUIRE(again.has_value());
    CHECK((*again)->restore(kept.get()).empty());
    CHECK(pushed(**again, 3) == second);
    CHECK_THAT((*again)->restore(nullptr), Catch::Contains("'dana_slim', which begins anew"));
}

TEST_CASE("kept vectors: where there is nothing there is no file") {
    CHECK(to_pieces({"sum", nullptr, nullptr}, 2)->empty());
    const Plan plan = plan_of();
    CHECK(
        to_pieces({"sum", std::make_shared<const TaskVectors>(plan.blocks.size() * 2), nullptr}, 2)
            ->empty());
    const TemporaryFolder folder;
    const auto read = read_kept(stored(folder, {"moco", made(plan).tasks, nullptr}), plan, 2);
    REQUIRE(read.has_value());
    CHECK(read->gates == nullptr);
}

TEST_CASE("kept vectors: a task that no longer owns a block leaves its vector behind") {
    const TemporaryFolder folder;
    const Plan plan = plan_of();
    const std::string path = stored(folder, made(plan));
    Plan other = plan;
    other.blocks[0].owners = TaskSet{2};
    const auto read = read_kept(path, other, 2);
    REQUIRE(read.has_value());
    CHECK((*read->tasks)[0].empty());
    CHECK((*read->tasks)[1].empty());  // nobody's but its own
    CHECK_FALSE((*read->tasks)[2].empty());
}

TEST_CASE("kept vectors: another file or one of other blocks is refused by name") {
    const TemporaryFolder folder;
    const std::string path = stored(folder, made(plan_of()));
    require_bad(read_kept(path, plan_of(4096), 2), "'block.0.task0': expected 1024 elements");
    REQUIRE(write_whole_file({folder / "x", {*safetensors_header({}, {{"format", "pt"}})}})
                .has_value());
    require_bad(read_kept(folder / "x", plan_of(), 2), "found 'pt'");
    const auto missing = read_kept(folder / "nowhere", plan_of(), 2);
    REQUIRE(missing.has_error());
    CHECK_THAT(missing.error().text, Catch::Contains("nowhere"));
}

}  // namespace
}  // namespace detente
