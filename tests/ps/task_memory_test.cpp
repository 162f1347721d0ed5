#include "ps/task_memory.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "common/random.h"
#include "tests/ps/one_shard.h"
#include "tests/reference/across_reference.h"

namespace detente::test {
namespace {

constexpr TaskId kFirst{0};
constexpr TaskId kSecond{1};

AcrossConfig projecting() {
    AcrossConfig across;
    across.method = AcrossMethod::project;
    return across;
}

// One memory, and what it makes of gradients.
struct Memory {
    AcrossConfig across = projecting();
    TaskMemory memory{};
    AcrossFigures figures{};
    std::vector<float> scratch{};
    std::vector<float> give(TaskId task, std::uint64_t base, std::vector<float> gradient) {
        TaskMemory::Arrival arrival;
        arrival.task = task;
        arrival.base = Version{base};
        memory.resolve(across, arrival, gradient, scratch, figures);
        return gradient;
    }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Job split_job() {
    Job job = job_of();
    job.split_tasks = true;
    job.across.method = AcrossMethod::project;
    job.across.ema = 0;
    job.policy = {"async", {}};
    return job;
}

// A push of the trunk by one task.
Push push_of_task(OneShard& shard, TaskId task, std::uint64_t step, std::vector<float> values,
                  std::uint64_t base) {
    GradientBlock block = shard.gradient(kTrunk, 0, Version{base});
    block.tasks = {};
    block.tasks.insert(task);
    auto buffer = std::make_shared<AlignedBuffer>(values.size() * sizeof(float));
    std::copy(values.begin(), values.end(), buffer->floats().begin());
    block.gradient = payload_of(std::move(buffer));
    Push push = shard.push_of(step, {block});
    push.batch.tasks = block.tasks;
    return push;
}

}  // namespace

TEST_CASE("task memory: a gradient against another task's average loses that part and no more") {
    Memory memory;
    CHECK(memory.give(kFirst, 0, {1, 0, 0, 0}) == std::vector<float>{1, 0, 0, 0});
    CHECK(memory.give(kSecond, 0, {-2, 3, 0, 0}) == std::vector<float>{0, 3, 0, 0});
    CHECK(memory.figures.arrived == 2);
    CHECK(memory.figures.projected == 1);
    CHECK(memory.figures.of_all_pairs().count == 1);
    CHECK(memory.figures.of_all_pairs().sum == Approx(-2 / std::sqrt(13.0)));
}

TEST_CASE("task memory: cosines are counted for each pair whichever of the two arrived") {
    Memory memory;
    memory.across.ema = 0;
    memory.give(kSecond, 0, {1, 0, 0, 0});
    memory.give(kFirst, 0, {-1, 0, 0, 0});    // with the second: −1
    memory.give(kSecond, 0, {-1, 0, 0, 0});   // with the first: 1
    memory.give(TaskId{2}, 0, {0, 1, 0, 0});  // with both: 0
    REQUIRE(memory.figures.pairs.size() == 3);
    const auto& both = memory.figures.pairs.at({kFirst, kSecond});
    CHECK(both.count == 2);
    CHECK(both.negative == 1);
    CHECK(both.sum == Approx(0).margin(1e-12));
    const auto& third = memory.figures.pairs.at({kSecond, TaskId{2}});
    CHECK(third.count == 1);
    CHECK(third.negative == 0);
    CHECK(memory.figures.of_all_pairs().count == 4);
}

TEST_CASE("task memory: a gradient along the others or the first of all stays as it came") {
    Memory memory;
    const std::vector<float> first{0.1F, -0.0F, 3e-30F, 7};
    CHECK(same_bits(memory.give(kFirst, 0, first), first));
    const std::vector<float> along{0.3F, -0.0F, -1e-30F, 0.7F};
    CHECK(same_bits(memory.give(kSecond, 0, along), along));
    // Against its own average it may turn as it likes.
    const std::vector<float> turned{-0.1F, 0, 0, -7};
    memory.across.half_life = 1e-3;
    CHECK(same_bits(memory.give(kFirst, 100, turned), turned));
    CHECK(memory.figures.projected == 0);
}

TEST_CASE("task memory: what is taken out halves with every half life between the weights") {
    for (const std::uint64_t apart : {0U, 4U, 8U, 40U}) {
        for (const bool older : {false, true}) {
            Memory memory;
            memory.across.half_life = 4;
            memory.give(kFirst, older ? apart : 0, {2, 0});
            const std::vector<float> resolved = memory.give(kSecond, older ? 0 : apart, {-8, 1});
            const double left = 1 - std::pow(0.5, static_cast<double>(apart) / 4);
            CHECK(resolved[0] == Approx(-8 * left).margin(1e-6));
            CHECK(resolved[1] == 1);
        }
    }
}

TEST_CASE("task memory: it remembers gradients as they came and not what was made of them") {
    Memory memory;
    memory.across.ema = 0;
    memory.give(kFirst, 0, {1, 0});
    memory.give(kSecond, 0, {-1, 1});  // resolved to {0, 1}
    const SavedMemory saved = memory.memory.save();
    REQUIRE(saved.tasks.size() == 2);
    CHECK(values_of(saved.tasks[1].mean) == std::vector<float>{-1, 1});
}

TEST_CASE("task memory: it does as the slow reference over many gradients of many tasks") {
    const auto [tasks, elements, lambda] =
        GENERATE(std::make_tuple(2U, 40U, 0.0), std::make_tuple(5U, 1300U, 0.0),
                 std::make_tuple(9U, 17U, 0.0), std::make_tuple(3U, 100U, 0.5));
    INFO(tasks << " tasks, " << elements << " elements, lambda " << lambda);
    AcrossConfig across = projecting();
    across.ema = 0.7;
    across.half_life = 5;
    across.compensate = lambda;
    reference::AcrossReference slow;
    slow.ema = across.ema;
    slow.half_life = across.half_life;
    slow.lambda = lambda;
    TaskMemory fast;
    AcrossFigures figures;
    std::vector<float> scratch;
    Random random(random_key(11, Purpose::test, {tasks, elements}));
    const auto draw = [&] {
        std::vector<float> values(elements);
        for (float& value : values) value = static_cast<float>(random.normal());
        return values;
    };
    const auto wide = [](const std::vector<float>& values) {
        return std::vector<double>(values.begin(), values.end());
    };
    for (std::uint64_t n = 0; n < 200; ++n) {
        const TaskId task{static_cast<std::uint32_t>(random.below(tasks))};
        const std::uint64_t base = n - random.below(std::min<std::uint64_t>(n, 6) + 1);
        std::vector<float> gradient = draw();
        const std::vector<float> now = draw();
        const std::vector<float> then = draw();
        const auto expected = slow.resolve(task.value, base, wide(gradient), wide(now), wide(then));
        fast.resolve(across, {task, Version{base}, now, then}, gradient, scratch, figures);
        double wrong_sq = 0;
        double length_sq = 0;
        for (std::size_t i = 0; i < elements; ++i) {
            wrong_sq += std::pow(expected[i] - static_cast<double>(gradient[i]), 2);
            length_sq += expected[i] * expected[i];
        }
        REQUIRE(std::sqrt(wrong_sq) <= 1e-5 * std::sqrt(length_sq));
    }
    CHECK(figures.arrived == 200);
    CHECK(figures.projected > 50);
}

TEST_CASE("task memory: what was saved goes on to the bit and what goes on does not change it") {
    Memory memory;
    Random random(random_key(3, Purpose::test));
    const auto draw = [&] {
        std::vector<float> values(50);
        for (float& value : values) value = static_cast<float>(random.normal());
        return values;
    };
    for (std::uint64_t n = 0; n < 20; ++n) {
        memory.give(TaskId{static_cast<std::uint32_t>(n % 3)}, n, draw());
    }
    const SavedMemory saved = memory.memory.save();
    const std::vector<float> before = values_of(saved.tasks[0].mean);
    Memory restored;
    restored.memory.restore(saved);
    for (std::uint64_t n = 20; n < 40; ++n) {
        const TaskId task{static_cast<std::uint32_t>(n % 4)};  // one of them new
        const std::vector<float> gradient = draw();
        REQUIRE(same_bits(memory.give(task, n, gradient), restored.give(task, n, gradient)));
    }
    CHECK(memory.memory.save().gramian == restored.memory.save().gramian);
    CHECK(values_of(saved.tasks[0].mean) == before);
}

TEST_CASE("task memory: what has all but decayed is not scaled up to the gradient's length") {
    for (const int zeros : {20, 130, 200, 700}) {  // in float: small, tiny, and nothing at all
        INFO(zeros);
        Memory memory;
        memory.across.ema = 0.5;
        memory.give(kFirst, 0, {1, 0, -3, 2});
        memory.give(TaskId{2}, 0, {2, 1, -1, 0});
        for (int i = 0; i < zeros; ++i) {
            memory.give(kFirst, 0, {0, 0, 0, 0});
            memory.give(TaskId{2}, 0, {0, 0, 0, 0});
        }
        const std::vector<float> left = memory.give(kSecond, 0, {-1, 5, 3, -2});
        for (const float one : left) CHECK(std::isfinite(one));
        CHECK(left == std::vector<float>{-1, 5, 3, -2});
    }
}

TEST_CASE("task memory: a gradient whose products are out of range is let through and forgotten") {
    Memory memory;
    memory.give(kFirst, 0, {1, 1});
    const std::vector<float> huge{-1e30F, 1e30F};
    CHECK(same_bits(memory.give(kSecond, 0, huge), huge));
    CHECK(memory.memory.save().tasks.size() == 1);
    CHECK(memory.give(kSecond, 0, {-1, -1}) == std::vector<float>{0, 0});
}

TEST_CASE("shard: an arriving gradient is resolved and the applied one is what was left of it") {
    OneShard shard(2, split_job());
    shard.initialise();
    for (std::uint32_t worker = 0; worker < 2; ++worker) shard.pull(worker, 1);
    shard.from(0, push_of_task(shard, kFirst, 1, {2, 0}, 0));
    shard.from(1, push_of_task(shard, kSecond, 1, {-2, 2}, 0));
    const auto weights = values_of(shard.block(kTrunk).weight_payload());
    CHECK(weights == std::vector<float>{0, 0});  // 1 − .5 · 2 each
    CHECK(shard.reported("across.arrived") == 2);
    CHECK(shard.reported("across.projected") == 1);
    CHECK(shard.reported("across.cosines") == 1);
}

TEST_CASE("shard: a rejected gradient and one of a task's own block leave no memory") {
    Job job = split_job();
    job.policy = {"bounded_reject", {{"tau_max", "0"}}};
    OneShard shard(2, job);
    shard.initialise();
    for (std::uint32_t worker = 0; worker < 3; ++worker) {
        shard.pull(worker, 1, {kTrunk, kHead});
    }
    shard.from(0, push_of_task(shard, kFirst, 1, {2, 0}, 0));
    shard.from(1, push_of_task(shard, kSecond, 1, {-2, 2}, 0));  // one version too old
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::rejected);
    CHECK(shard.block(kTrunk).memory.save().tasks.size() == 1);
    Push head = shard.push_of(1, {shard.gradient(kHead)}, 1);
    head.batch.tasks.insert(kFirst);
    shard.from(2, head);
    CHECK(shard.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    CHECK(shard.block(kHead).memory.save().tasks.empty());
}

TEST_CASE("shard: under split tasks a push of several tasks is refused") {
    OneShard shard(2, split_job());
    shard.initialise();
    shard.pull(0, 1);
    shard.from(0, shard.push_of(1, {shard.gradient(kTrunk)}));
    CHECK(shard.last<Refusal>().code == ErrorCode::bad_message);
    CHECK(shard.last<Refusal>().text.find("a step is of one task") != std::string::npos);
}

TEST_CASE("task memory: the compensated gradient decides and the gradient itself is projected") {
    // With λ = 1 and weights moved by (−1, 0) since, (x, y) counts as (x − x², y).
    const std::vector<float> now{0, 0};
    const std::vector<float> stale{1, 0};
    const auto resolved = [&](std::vector<float> mean, std::vector<float> gradient) {
        Memory memory;
        memory.across.compensate = 1;
        memory.give(kFirst, 5, std::move(mean));
        memory.memory.resolve(memory.across, {kSecond, Version{5}, now, stale}, gradient,
                              memory.scratch, memory.figures);
        CHECK(memory.figures.of_all_pairs().count == 1);
        return std::pair(gradient, memory.figures.of_all_pairs().sum);
    };
    // Both in conflict: what is left is orthogonal to the mean, as without compensation.
    auto [taken, cosine] = resolved({1, 1}, {-3, 1});  // counts as (−12, 1)
    CHECK(taken == std::vector<float>{-2, 2});
    CHECK(cosine == Approx(-11 / std::sqrt(2 * 145.0)));
    // It would be in conflict no more, had it been computed now: left alone.
    std::tie(taken, cosine) = resolved({-1, 0}, {2, 1});  // counts as (−2, 1)
    CHECK(taken == std::vector<float>{2, 1});
    CHECK(cosine > 0);
    // It would be now but is not itself: there is nothing of it to take out.
    std::tie(taken, cosine) = resolved({1, 0}, {2, 1});  // counts as (−2, 1)
    CHECK(taken == std::vector<float>{2, 1});
    CHECK(cosine < 0);
}

TEST_CASE("shard: with compensation the cosine is of the gradient as it would be now") {
    Job job = split_job();
    job.across.compensate = 1;
    OneShard shard(2, job);
    shard.initialise();
    for (std::uint32_t worker = 0; worker < 2; ++worker) shard.pull(worker, 1);
    // Moves w by (−1, 0): the second, (−1, .5), then counts as (−2, .5); what is taken out of it is
    // its own 1.
    shard.from(0, push_of_task(shard, kFirst, 1, {2, 0}, 0));
    const auto before = values_of(shard.block(kTrunk).weight_payload());
    REQUIRE(before == std::vector<float>{0, 1});
    shard.from(1, push_of_task(shard, kSecond, 1, {-1, 0.5F}, 0));
    const auto weights = values_of(shard.block(kTrunk).weight_payload());
    CHECK(weights[0] == Approx(0));
    CHECK(weights[1] == Approx(1 - 0.25));
    CHECK(shard.reported("across.cosine_sum") == Approx(-2 / std::sqrt(4 + 0.25)));
    CHECK(shard.reported("across.pair.0.1.cosine_sum") == Approx(-2 / std::sqrt(4 + 0.25)));
    CHECK(shard.reported("across.pair.0.1.cosines") == 1);
    CHECK(shard.reported("across.pair.0.1.negative") == 1);
}

TEST_CASE("shard: a policy that corrects gradients does not go with a memory of tasks") {
    for (const char* policy : {"dc_asgd", "gap_aware", "easgd", "dana_zero", "bsp"}) {
        Job job = split_job();
        job.policy = {policy, {}};
        const auto plan = make_plan(model_of(2), job);
        REQUIRE(plan.has_value());
        const auto store = BlockStore::create(*plan, job, kLeadShard, Epoch{1});
        REQUIRE_FALSE(store.has_value());
        CHECK(store.error().code == ErrorCode::bad_job);
    }
}

}  // namespace detente::test
