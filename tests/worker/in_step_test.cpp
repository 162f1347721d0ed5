// Rows in step, and the notes of a round.
#include <catch2/catch.hpp>
#include <cstring>

#include "tests/recorded_effects.h"
#include "worker/sync_rounds.h"

namespace detente::test {
namespace {

// Two tasks; tensor 0 (two blocks) both own, tensor 1 is task 1's, tensor 2 is not in step.
Plan plan_in_step() {
    Plan plan;
    const auto add = [&plan](std::uint32_t tensor, std::uint64_t offset, std::uint64_t elements,
                             std::uint64_t owners, bool in_step) {
        Block block;
        block.id = BlockId{plan.blocks.size()};
        block.tensor = tensor;
        block.offset = offset;
        block.elements = elements;
        block.owners.bits = owners;
        block.in_step = in_step;
        plan.blocks.push_back(block);
    };
    add(0, 0, 3, 3, true);
    add(0, 3, 2, 3, true);
    add(1, 0, 4, 2, true);
    add(2, 0, 5, 3, false);
    plan.by_shard = {{BlockId{0}, BlockId{1}, BlockId{2}, BlockId{3}}};
    return plan;
}

// Element e of task t's row of tensor k is 100 t + 10 k + e.
class CountedRows final : public TaskGradients {
  public:
    CountedRows() {
        for (std::size_t task = 0; task < 2; ++task) {
            for (std::size_t tensor = 0; tensor < 3; ++tensor) {
                for (std::size_t e = 0; e < 5; ++e) {
                    rows_[task][tensor][e] = static_cast<float>(100 * task + 10 * tensor + e);
                }
            }
        }
    }
    const float* gradient(TaskId task, std::size_t tensor) const override {
        if (task.value == 0 && tensor == 1) return nullptr;
        return rows_[task.value][tensor];
    }

  private:
    float rows_[2][3][5] = {};
};

std::vector<float> values_of(const Payload& payload) {
    std::vector<float> values(payload.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), payload.bytes.data(), payload.size());
    return values;
}

class Nobody final : public Node {
  public:
    void on(Event&& /*event*/, Time /*now*/, Effects& /*effects*/) override {}
};

Job job_in_step() {
    Job job;
    job.workers = 3;
    job.sync_layers = {"*"};
    return job;
}

// What the members of a group brought to a bucket, averaged as any backend does.
Reduced averaged(const std::vector<std::pair<CollectiveKey, GradientShare>>& shares) {
    double weights = 0;
    for (const auto& [key, share] : shares) weights += share.weight;
    if (weights == 0) return {{shares.front().first, Weightless{}, {}}};
    std::vector<float> mean(shares.front().second.elements, 0.0F);
    for (const auto& [key, share] : shares) {
        REQUIRE(key == shares.front().first);
        REQUIRE(share.elements == mean.size());
        const auto part = static_cast<float>(share.weight / weights);
        const std::vector<float> values = values_of(share.gradient);
        for (std::size_t i = 0; share.weight > 0 && i < mean.size(); ++i) {
            mean[i] += part * values[i];
        }
    }
    return {{shares.front().first, Averaged{copy_of(std::as_bytes(std::span(mean))), weights}, {}}};
}

// Three members, and what each has asked to be averaged.
struct Members {
    Plan plan = plan_in_step();
    Nobody nobody;
    std::vector<std::unique_ptr<RecordedEffects>> effects;
    std::vector<std::unique_ptr<SyncRounds>> rounds;
    Members() {
        for (std::uint32_t i = 0; i < 3; ++i) {
            effects.push_back(std::make_unique<RecordedEffects>(nobody));
            rounds.push_back(std::make_unique<SyncRounds>(WorkerId{i}, plan, job_in_step(), 2));
            rounds[i]->form({GroupEpoch{5}, {WorkerId{0}, WorkerId{1}, WorkerId{2}}}, *effects[i]);
            CHECK_FALSE(rounds[i]->averages());
            REQUIRE(rounds[i]->formed({GroupEpoch{5}, {}}) == SyncRounds::Formed::ready);
            REQUIRE(rounds[i]->averages());
        }
    }
    // Averages a bucket and tells all members; what ended at each.
    std::vector<std::optional<SyncRounds::Ended>> exchange(Step round, std::uint32_t bucket) {
        std::vector<std::pair<CollectiveKey, GradientShare>> shares;
        for (const auto& one : effects) {
            for (const auto& [key, share] : one->reduced) {
                if (key.step == round && key.bucket.value == bucket)
                    shares.emplace_back(key, share);
            }
        }
        REQUIRE(shares.size() == 3);
        std::vector<std::optional<SyncRounds::Ended>> ended;
        for (auto& one : rounds) ended.push_back(one->reduced(averaged(shares)));
        return ended;
    }
    static SyncRounds::Base base(std::uint64_t version) {
        SyncRounds::Base base;
        for (std::uint64_t i = 0; i < 3; ++i) base[BlockId{i}] = {Epoch{1}, Version{version + i}};
        return base;
    }
};

}  // namespace

TEST_CASE(
    "in step: a task's row is its tensors in step one after the other, and averages lie over it") {
    const Plan plan = plan_in_step();
    const InStepRows rows(plan, 2);
    CHECK(rows.blocks() == std::vector<BlockId>{BlockId{0}, BlockId{1}, BlockId{2}});
    CHECK(rows.elements(TaskId{0}) == 5);
    CHECK(rows.elements(TaskId{1}) == 9);
    const auto own = std::make_shared<CountedRows>();
    CHECK(values_of(rows.pack(TaskId{0}, *own)) == std::vector<float>{0, 1, 2, 3, 4});
    CHECK(values_of(rows.pack(TaskId{1}, *own)) ==
          std::vector<float>{100, 101, 102, 103, 104, 110, 111, 112, 113});

    std::vector<float> average(9);
    for (std::size_t i = 0; i < 9; ++i) average[i] = -static_cast<float>(i);
    const auto over = rows.overlay(own, {Payload{}, copy_of(std::as_bytes(std::span(average)))});
    CHECK(over->gradient(TaskId{1}, 0)[4] == -4);
    CHECK(over->gradient(TaskId{1}, 1)[0] == -5);
    CHECK(over->gradient(TaskId{1}, 2)[1] == 121);  // not in step: its own
    CHECK(over->gradient(TaskId{0}, 0)[3] == 0);    // no member had any
    CHECK(over->gradient(TaskId{0}, 1) == nullptr);
}

TEST_CASE("in step: what a round brings is its notes and each task's row and the word") {
    const Plan plan = plan_in_step();
    // Three members say 1 + 6 · 3 numbers each; rows of 5 and 9; a number per block. In 64 bytes.
    CHECK(round_bytes(plan, 2, 3) == 256 + 64 + 64 + 64);
}

TEST_CASE("in step: an average at an odd address is read all the same") {
    const Plan plan = plan_in_step();
    const InStepRows rows(plan, 2);
    const std::vector<float> values{1, 2, 3, 4, 5};
    auto odd = std::make_shared<AlignedBuffer>(21);
    std::memcpy(odd->data() + 1, values.data(), 20);
    const Payload payload{odd, std::span<const std::byte>(odd->data() + 1, 20)};
    const auto over = rows.overlay(std::make_shared<CountedRows>(), {payload, Payload{}});
    CHECK(over->gradient(TaskId{0}, 0)[4] == 5);
}

TEST_CASE("in step: the first that takes part pushes, at the oldest versions of any") {
    Members members;
    // Versions beyond what a float can count.
    const std::uint64_t far = 0x123456789abcULL;
    const std::uint64_t versions[] = {0, far + 7, far};
    const SyncRounds::Base first = Members::base(versions[1]);
    const SyncRounds::Base second = Members::base(versions[2]);
    CHECK(members.rounds[0]->open(nullptr, 0, *members.effects[0]) == Step{1});  // has no batch
    CHECK(members.rounds[1]->open(&first, 16, *members.effects[1]) == Step{1});
    CHECK(members.rounds[2]->open(&second, 8, *members.effects[2]) == Step{1});
    CHECK(members.rounds[0]->passes());
    const InStepRows rows(members.plan, 2);
    const CountedRows gradients;
    for (const std::size_t i : {1U, 2U}) {
        for (std::uint32_t task = 0; task < 2; ++task) {
            members.rounds[i]->bring(Step{1}, TaskId{task}, rows.pack(TaskId{task}, gradients),
                                     *members.effects[i]);
        }
    }
    members.exchange(Step{1}, 1);
    CHECK_FALSE(members.rounds[1]->take_averages(Step{1}, *members.effects[1]).has_value());
    members.exchange(Step{1}, 0);
    members.exchange(Step{1}, 2);
    const auto pushes = members.rounds[1]->take_averages(Step{1}, *members.effects[1]);
    const auto waits = members.rounds[2]->take_averages(Step{1}, *members.effects[2]);
    REQUIRE((pushes && waits));
    CHECK(pushes->pushes);
    CHECK_FALSE(waits->pushes);
    CHECK(pushes->samples == 24);
    CHECK(pushes->base == second);
    CHECK(waits->base == second);
    CHECK(values_of(pushes->by_task[0])[4] == Approx(4));

    members.rounds[1]->tell(Step{1}, {BlockId{2}}, *members.effects[1]);
    for (const auto& ended : members.exchange(Step{1}, 3)) {
        REQUIRE(ended.has_value());
        CHECK(ended->rejected == std::vector<BlockId>{BlockId{2}});
    }
    CHECK(members.rounds[0]->ended() == 1);
    CHECK_FALSE(members.rounds[0]->passes());
}

TEST_CASE("in step: where who is to push is cancelled nothing is pushed and all are told") {
    Members members;
    const SyncRounds::Base base = Members::base(3);
    for (std::size_t i = 0; i < 3; ++i) members.rounds[i]->open(&base, 16, *members.effects[i]);
    const InStepRows rows(members.plan, 2);
    const CountedRows gradients;
    for (std::size_t i = 0; i < 3; ++i) {
        members.rounds[i]->bring(Step{1}, TaskId{0}, rows.pack(TaskId{0}, gradients),
                                 *members.effects[i]);
    }
    members.rounds[0]->withdraw(Step{1}, *members.effects[0]);
    for (const std::size_t i : {1U, 2U}) {
        members.rounds[i]->bring(Step{1}, TaskId{1}, rows.pack(TaskId{1}, gradients),
                                 *members.effects[i]);
    }
    for (const std::uint32_t bucket : {0U, 1U, 2U}) members.exchange(Step{1}, bucket);
    const auto averages = members.rounds[1]->take_averages(Step{1}, *members.effects[1]);
    REQUIRE(averages.has_value());
    CHECK_FALSE(averages->pushes);
    REQUIRE(members.rounds[2]->take_averages(Step{1}, *members.effects[2]).has_value());
    CHECK_FALSE(members.rounds[0]->take_averages(Step{1}, *members.effects[0]).has_value());
    for (const auto& ended : members.exchange(Step{1}, 3)) {
        REQUIRE(ended.has_value());
        CHECK(ended->dropped);
        CHECK(ended->rejected.empty());
    }
}

TEST_CASE(
    "in step: a new group gives up every round once it is there and what comes late is ignored") {
    Members members;
    const SyncRounds::Base base = Members::base(3);
    SyncRounds& rounds = *members.rounds[0];
    RecordedEffects& effects = *members.effects[0];
    rounds.open(&base, 16, effects);
    const CollectiveKey old = effects.reduced.back().first;
    using Formed = SyncRounds::Formed;
    REQUIRE(rounds.form({GroupEpoch{6}, {WorkerId{0}, WorkerId{2}}}, effects));
    CHECK(rounds.has(Step{1}));  // until all its ends are known
    CHECK_FALSE(rounds.ready());
    CHECK(rounds.formed({GroupEpoch{5}, {}}) == Formed::no);
    REQUIRE(rounds.formed({GroupEpoch{6}, {}}) == Formed::ready);
    CHECK_FALSE(rounds.has(Step{1}));
    CHECK(rounds.open(&base, 16, effects) == Step{1});  // counted anew
    CHECK_FALSE(rounds.reduced({{old, Weightless{}, {}}}).has_value());
    CHECK_FALSE(rounds.broke({GroupEpoch{5}, {}}));
    CHECK(rounds.broke({GroupEpoch{6}, {}}));
    CHECK_FALSE(rounds.ready());
    CHECK_FALSE(rounds.form({GroupEpoch{6}, {WorkerId{0}, WorkerId{2}}}, effects));  // an old one
    rounds.form({GroupEpoch{7}, {WorkerId{0}, WorkerId{2}}}, effects);
    CHECK(rounds.formed({GroupEpoch{7}, fail(ErrorCode::timed_out, "late")}) == Formed::lost);
    // Alone; the others are told by leaving, and whether that went well is no matter.
    rounds.form({GroupEpoch{8}, {WorkerId{0}}}, effects);
    CHECK(effects.formed.back().members.size() == 1);
    CHECK(rounds.formed({GroupEpoch{8}, fail(ErrorCode::io, "no memory")}) == Formed::ready);
    CHECK(rounds.ready());
    CHECK_FALSE(rounds.averages());
}

}  // namespace detente::test
