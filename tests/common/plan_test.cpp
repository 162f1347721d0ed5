#include "common/partition/plan.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <set>

#include "common/partition/stored_order.h"

namespace detente {
namespace {

TaskSet tasks(std::uint64_t bits) { return TaskSet{bits}; }

ModelDescription multifashion() {
    ModelDescription model;
    model.model = "multifashion";
    model.tasks = {"left", "right"};
    model.tensors = {
        {"trunk.conv1.weight", {10, 1, 5, 5}, tasks(3)},  {"trunk.conv1.bias", {10}, tasks(3)},
        {"trunk.conv2.weight", {20, 10, 5, 5}, tasks(3)}, {"trunk.conv2.bias", {20}, tasks(3)},
        {"trunk.fc.weight", {50, 320}, tasks(3)},         {"trunk.fc.bias", {50}, tasks(3)},
        {"heads.left.weight", {10, 50}, tasks(1)},        {"heads.left.bias", {10}, tasks(1)},
        {"heads.right.weight", {10, 50}, tasks(2)},       {"heads.right.bias", {10}, tasks(2)}};
    return model;
}

ModelDescription large() {
    ModelDescription model;
    model.model = "large";
    model.tasks = {"a"};
    for (std::uint64_t i = 0; i < 40; ++i) {
        const std::int64_t extent = 1 + static_cast<std::int64_t>((i * 7919 + 13) % 977);
        model.tensors.push_back({"layer" + std::to_string(i), {extent, 1023}, tasks(1)});
    }
    return model;
}

Plan plan_of(const ModelDescription& model, const Job& job) {
    const Result<Plan> plan = make_plan(model, job);
    INFO((plan.has_error() ? plan.error().text : ""));
    REQUIRE(plan.has_value());
    return *plan;
}

void require_bad_job(const ModelDescription& model, const Job& job, const std::string& named) {
    const Result<Plan> plan = make_plan(model, job);
    REQUIRE(plan.has_error());
    CHECK(plan.error().code == ErrorCode::bad_job);
    CHECK_THAT(plan.error().text, Catch::Contains(named));
}

TEST_CASE("plan: blocks cover every tensor once, in order, within the bound, cut at tiles") {
    Job job;
    job.block_bytes = 64 << 10;
    const ModelDescription model = large();
    const Plan plan = plan_of(model, job);
    std::uint32_t tensor = 0;
    std::uint64_t offset = 0;
    for (std::size_t i = 0; i < plan.blocks.size(); ++i) {
        const Block& block = plan.blocks[i];
        CHECK(block.id.value == i);
        CHECK(block.bytes() <= job.block_bytes);
        CHECK(block.elements > 0);
        CHECK(block.offset % kTileElements == 0);
        if (block.tensor != tensor) {
            CHECK(offset == model.tensors[tensor].elements());
            CHECK(block.tensor == tensor + 1);
            tensor = block.tensor;
            offset = 0;
        }
        CHECK(block.offset == offset);
        offset += block.elements;
    }
    CHECK(tensor + 1 == model.tensors.size());
    CHECK(offset == model.tensors.back().elements());
    CHECK(plan.parameters ==
          std::accumulate(model.tensors.begin(), model.tensors.end(), std::uint64_t{0},
                          [](std::uint64_t sum, const auto& t) { return sum + t.elements(); }));
}

TEST_CASE("plan: the cut is the same for any number of shards, only homes differ") {
    Job job;
    job.block_bytes = 32 << 10;
    const Plan one = plan_of(large(), job);
    for (const std::uint32_t shards : {2U, 3U, 8U, 1000U}) {
        job.servers = shards;
        const Plan many = plan_of(large(), job);
        REQUIRE(many.blocks.size() == one.blocks.size());
        for (std::size_t i = 0; i < one.blocks.size(); ++i) {
            CHECK(many.blocks[i].tensor == one.blocks[i].tensor);
            CHECK(many.blocks[i].offset == one.blocks[i].offset);
            CHECK(many.blocks[i].elements == one.blocks[i].elements);
        }
        CHECK(many.by_shard.size() == shards);
    }
}

TEST_CASE("plan: every block lives on exactly one shard and the bytes add up") {
    Job job;
    job.servers = 3;
    job.shards_per_server = 2;
    const Plan plan = plan_of(large(), job);
    REQUIRE(plan.by_shard.size() == 6);
    std::vector<int> seen(plan.blocks.size());
    for (std::uint32_t shard = 0; shard < 6; ++shard) {
        std::uint64_t bytes = 0;
        CHECK(std::is_sorted(plan.by_shard[shard].begin(), plan.by_shard[shard].end()));
        for (const BlockId id : plan.by_shard[shard]) {
            CHECK(plan.block(id).home == ShardId{shard});
            ++seen[id.value];
            bytes += plan.block(id).bytes();
        }
        CHECK(bytes == plan.shard_bytes[shard]);
    }
    CHECK(std::count(seen.begin(), seen.end(), 1) == static_cast<std::ptrdiff_t>(seen.size()));
}

TEST_CASE("plan: shards differ by no more than one block, and the plan is the same twice") {
    Job job;
    job.servers = 4;
    job.block_bytes = 64 << 10;
    const Plan plan = plan_of(large(), job);
    const auto [least, most] =
        std::minmax_element(plan.shard_bytes.begin(), plan.shard_bytes.end());
    CHECK(*most - *least <= job.block_bytes);
    CHECK(plan.imbalance() >= 1);
    CHECK(plan.imbalance() < 1.01);
    const Plan again = plan_of(large(), job);
    for (std::size_t i = 0; i < plan.blocks.size(); ++i) {
        CHECK(plan.blocks[i].home == again.blocks[i].home);
    }
}

TEST_CASE("plan: a tensor slightly over the bound gives two near halves, not a crumb") {
    ModelDescription model;
    model.model = "m";
    model.tasks = {"a"};
    model.tensors = {{"w", {9 * 1024 + 5}, tasks(1)}};
    Job job;
    job.block_bytes = 8 * 4096;
    const Plan plan = plan_of(model, job);
    REQUIRE(plan.blocks.size() == 2);
    CHECK(plan.blocks[0].elements == 5 * 1024);
    CHECK(plan.blocks[1].elements == 4 * 1024 + 5);
}

TEST_CASE("plan: MultiFashion on two shards, as placement by falling size says") {
    Job job;
    job.servers = 2;
    const Plan plan = plan_of(multifashion(), job);
    REQUIRE(plan.blocks.size() == 10);
    CHECK(plan.parameters == 22350);
    CHECK(plan.blocks[4].home == ShardId{0});  // fc.weight alone outweighs the rest
    CHECK(plan.by_shard[0] == std::vector<BlockId>{BlockId{4}});
    CHECK(plan.shard_bytes[0] == 64000);
}

TEST_CASE("plan: a task that excludes a tensor does not own its blocks") {
    Job job;
    job.tasks = {{"left", {"trunk.conv1.*"}}, {"right", {}}};
    const Plan plan = plan_of(multifashion(), job);
    CHECK(plan.blocks[0].owners == tasks(2));
    CHECK_FALSE(plan.blocks[0].shared());
    CHECK(plan.blocks[1].owners == tasks(2));
    CHECK(plan.blocks[2].owners == tasks(3));
    CHECK(plan.blocks[2].shared());
}

TEST_CASE("plan: frozen by the job, by the model, or because no loss reaches it") {
    ModelDescription model = multifashion();
    model.tensors[2].frozen = true;
    model.tensors[3].owners = {};
    Job job;
    job.frozen = {"trunk.fc.*"};
    const Plan plan = plan_of(model, job);
    const std::vector<bool> expected = {false, false, true,  true,  true,
                                        true,  false, false, false, false};
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(plan.blocks[i].frozen == expected[i]);
}

TEST_CASE("plan: the first rule and policy whose pattern matches win, else the job's") {
    Job job;
    job.rule_for = {{"*.bias", {}, {}}, {"trunk.*", {}, {}}};
    job.policy_for = {{"heads.*", {}}};
    const Plan plan = plan_of(multifashion(), job);
    CHECK(plan.blocks[0].rule == 2);
    CHECK(plan.blocks[1].rule == 1);
    CHECK(plan.blocks[6].rule == 0);
    CHECK(plan.blocks[7].rule == 1);
    CHECK(plan.blocks[0].policy == 0);
    CHECK(plan.blocks[6].policy == 1);
}

TEST_CASE("plan: a pattern that matches no tensor is refused, naming the key and the nearest") {
    Job frozen;
    frozen.frozen = {"trunk.conv3.weight"};
    require_bad_job(multifashion(), frozen, "model.frozen");
    require_bad_job(multifashion(), frozen, "'trunk.conv1.weight'");
    Job rule;
    rule.rule_for = {{"head.left.weight", {}, {}}};
    require_bad_job(multifashion(), rule, "rule.for");
    require_bad_job(multifashion(), rule, "'heads.left.weight'");
    Job policy;
    policy.policy_for = {{"nothing", {}}};
    require_bad_job(multifashion(), policy, "staleness.for");
    Job exclude;
    exclude.tasks = {{"left", {"trunk.conv1.weigth"}}};
    require_bad_job(multifashion(), exclude, "task 'left', exclude");
    require_bad_job(multifashion(), exclude, "'trunk.conv1.weight'");
}

TEST_CASE("plan: an unknown or doubled task, and a tensor all tasks exclude, are refused by name") {
    Job unknown;
    unknown.tasks = {{"rigth", {}}};
    require_bad_job(multifashion(), unknown, "did you mean 'right'");
    Job twice;
    twice.tasks = {{"left", {}}, {"left", {}}};
    require_bad_job(multifashion(), twice, "'left' is listed twice");
    Job orphan;
    orphan.tasks = {{"left", {"heads.left.*"}}};
    require_bad_job(multifashion(), orphan, "'heads.left.weight'");
    orphan.frozen = {"heads.left.*"};
    CHECK(make_plan(multifashion(), orphan).has_value());
}

TEST_CASE("plan: block sizes that are no multiple of a tile are refused with the nearest") {
    Job job;
    job.block_bytes = 10000;
    require_bad_job(multifashion(), job, "the nearest is 8192");
    require_bad_job(multifashion(), job, "blocks.bytes: expected a multiple of 4096");
    job.block_bytes = 0;
    require_bad_job(multifashion(), job, "the nearest is 4096");
}

TEST_CASE("plan: more measured blocks than one notice holds are refused with what to raise") {
    ModelDescription model;
    model.model = "large";
    model.tasks = {"a"};
    model.tensors = {{"layer", {65537, 1024}, tasks(1)}};
    Job job;
    job.block_bytes = 4096;
    job.policy = {"kardam", {}};
    require_bad_job(model, job,
                    "shard 0 has 65537 blocks, at most 65536 fit one notice; raise blocks.bytes");
    job.servers = 2;
    CHECK(plan_of(model, job).blocks.size() == 65537);
}

TEST_CASE("plan: the printed table names every block, its home, its owners and the balance") {
    Job job;
    job.servers = 2;
    job.frozen = {"trunk.fc.bias"};
    const std::string text = describe(plan_of(multifashion(), job), multifashion());
    CHECK_THAT(text, Catch::Contains("heads.right.weight"));
    CHECK_THAT(text, Catch::Contains("left+right"));
    CHECK_THAT(text, Catch::Contains("frozen"));
    CHECK_THAT(text, Catch::Contains("shard 0: 1 blocks, 64000 bytes"));
    CHECK_THAT(text, Catch::Contains("22350 parameters in 10 blocks on 2 shards"));
    CHECK(std::count(text.begin(), text.end(), '\n') == 1 + 10 + 1 + 2 + 1);
}

TEST_CASE(
    "plan: a mask leaves a part shared and cuts the rest into one stretch per owner by rows") {
    Job job;
    job.masks = {{"trunk.fc.*", 0.6}, {"trunk.*", 0}};
    const ModelDescription model = multifashion();
    const Plan plan = plan_of(model, job);
    const auto of_tensor = [&](std::size_t tensor) {
        std::vector<Block> blocks;
        for (const Block& block : plan.blocks) {
            if (block.tensor == tensor) blocks.push_back(block);
        }
        return blocks;
    };
    const std::vector<Block> fc = of_tensor(4);  // 50 rows of 320
    REQUIRE(fc.size() == 3);
    CHECK(fc[0].elements == 30 * 320);
    CHECK(fc[0].owners == tasks(3));
    CHECK(fc[1].offset == 30 * 320);
    CHECK(fc[1].elements == 10 * 320);
    CHECK(fc[1].owners == tasks(1));
    CHECK(fc[2].offset == 40 * 320);
    CHECK(fc[2].elements == 10 * 320);
    CHECK(fc[2].owners == tasks(2));
    for (const std::size_t tensor : {0U, 1U, 2U, 3U}) {  // the second entry: nothing is shared
        const std::vector<Block> blocks = of_tensor(tensor);
        REQUIRE(blocks.size() == 2);
        CHECK(blocks[0].elements + blocks[1].elements == model.tensors[tensor].elements());
        CHECK_FALSE(blocks[0].shared());
        CHECK_FALSE(blocks[1].shared());
    }
    CHECK(of_tensor(6).size() == 1);  // heads have one owner anyway
}

TEST_CASE("plan: a strided mask deals out what is not shared element by element") {
    Job job;
    job.masks = {{"trunk.fc.*", 0.6, ExclusiveParts::strided}};
    const ModelDescription model = multifashion();
    const Plan plan = plan_of(model, job);
    std::vector<Block> fc;
    for (const Block& block : plan.blocks) {
        if (block.tensor == 4) fc.push_back(block);
    }
    REQUIRE(fc.size() == 3);
    CHECK(fc[0].stride == 1);
    CHECK(fc[0].elements == 30 * 320);
    CHECK(fc[1].owners == tasks(1));
    CHECK(fc[1].first == 30 * 320);
    CHECK(fc[1].stride == 2);
    CHECK(fc[1].offset == 30 * 320);
    CHECK(fc[1].elements == 10 * 320);
    CHECK(fc[2].owners == tasks(2));
    CHECK(fc[2].first == 30 * 320 + 1);
    CHECK(fc[2].offset == 40 * 320);
    CHECK_THAT(describe(plan, model), Catch::Contains("stride"));
    CHECK_THAT(describe(plan_of(model, Job{}), model), !Catch::Contains("stride"));
}

TEST_CASE(
    "plan: under any mask every element of a tensor is in one block and stored at one place") {
    ModelDescription model;
    model.model = "three tasks";
    model.tasks = {"a", "b", "c"};
    model.tensors = {{"w", {67, 101}, tasks(7)}, {"v", {5}, tasks(5)}, {"u", {2}, tasks(7)}};
    for (const ExclusiveParts parts : {ExclusiveParts::runs, ExclusiveParts::strided}) {
        for (const double shared : {0.0, 0.3, 1.0}) {
            for (const std::uint64_t bytes : {4096U, 1U << 20U}) {
                Job job;
                job.block_bytes = bytes;
                job.masks = {{"*", shared, parts}};
                const Plan plan = plan_of(model, job);
                for (std::size_t tensor = 0; tensor < model.tensors.size(); ++tensor) {
                    std::set<std::uint64_t> elements;
                    std::uint64_t stored = 0;
                    for (const Block& block : plan.blocks) {
                        if (block.tensor != tensor) continue;
                        CHECK(block.bytes() <= bytes);
                        CHECK(block.offset == stored);
                        stored += block.elements;
                        for (std::uint64_t k = 0; k < block.elements; ++k) {
                            elements.insert(block.first + k * block.stride);
                        }
                    }
                    CHECK(stored == model.tensors[tensor].elements());
                    CHECK(elements.size() == stored);
                    CHECK(*elements.rbegin() == stored - 1);
                }
            }
        }
    }
}

TEST_CASE("plan: stored order is a rearrangement that is undone and leaves other tensors alone") {
    ModelDescription model = multifashion();
    Job job;
    job.block_bytes = 4096;
    job.masks = {{"trunk.fc.weight", 0.5, ExclusiveParts::strided}, {"trunk.fc.bias", 0.5}};
    const Plan plan = plan_of(model, job);
    const StoredOrder order(plan);
    REQUIRE(order.any());
    CHECK(order.moved() == std::vector<std::size_t>{4});
    CHECK_FALSE(order.moves(5));
    CHECK_FALSE(order.moves(9));
    std::vector<float> own(model.tensors[4].elements());
    std::iota(own.begin(), own.end(), 0.0F);
    std::vector<float> stored(own.size());
    order.store(4, own.data(), stored);
    for (const Block& block : plan.blocks) {
        if (block.tensor != 4) continue;
        CHECK(stored[block.offset] == static_cast<float>(block.first));
        CHECK(stored[block.offset + 1] == static_cast<float>(block.first + block.stride));
    }
    std::vector<float> back(own.size());
    order.restore(4, stored, back.data());
    CHECK(back == own);
    CHECK_FALSE(StoredOrder(plan_of(model, Job{})).any());
}

TEST_CASE("plan: a mask of one leaves every tensor as it was") {
    Job job;
    job.masks = {{"*", 1}};
    const Plan masked = plan_of(large(), job);
    const Plan plain = plan_of(large(), Job{});
    REQUIRE(masked.blocks.size() == plain.blocks.size());
    job.masks = {{"trunk.*", 1}};
    CHECK(plan_of(multifashion(), job).blocks.size() ==
          plan_of(multifashion(), Job{}).blocks.size());
}

TEST_CASE("plan: a mask that matches no tensor is refused") {
    Job job;
    job.masks = {{"trunk.conv9.*", 0.5}};
    require_bad_job(multifashion(), job, "mask");
}

}  // namespace
}  // namespace detente
