// One shard in a test's hands: what it is told, and what it says to whom.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/checksum.h"
#include "ps/shard.h"
#include "tests/recorded_effects.h"

namespace detente::test {

inline constexpr BlockId kTrunk{0};      // owned by tasks 0 and 1
inline constexpr BlockId kHead{1};       // owned by task 0
inline constexpr BlockId kEmbedding{2};  // frozen
inline constexpr float kFirstWeight = 1.0F;

inline ModelDescription model_of(std::uint64_t trunk_elements) {
    ModelDescription model;
    model.model = "small";
    model.tasks = {"a", "b"};
    model.training_samples = 640;
    model.tensors = {{"trunk.weight", {static_cast<std::int64_t>(trunk_elements)}, TaskSet{3}},
                     {"heads.a.weight", {6}, TaskSet{1}},
                     {"embedding.weight", {8}, TaskSet{}, true}};
    return model;
}

inline Job job_of() {
    Job job;
    job.workers = 3;
    job.batch_samples = 64;
    job.block_bytes = 4U << 20U;
    job.rule.name = "sgd";
    job.rule.learning_rate = 0.5;
    return job;
}

inline Payload floats(std::size_t elements, float value) {
    auto buffer = std::make_shared<AlignedBuffer>(elements * sizeof(float));
    std::fill_n(buffer->floats().begin(), elements, value);
    return payload_of(std::move(buffer));
}

inline std::vector<float> values_of(const Payload& payload) {
    const auto* first = reinterpret_cast<const float*>(payload.bytes.data());
    return {first, first + payload.size() / sizeof(float)};
}

// The one value all floats have; NaN if they differ.
inline float value_of(const Payload& payload) {
    const std::vector<float> values = values_of(payload);
    const bool same = !values.empty() && std::all_of(values.begin(), values.end(),
                                                     [&](float v) { return v == values.front(); });
    return same ? values.front() : std::numeric_limits<float>::quiet_NaN();
}

class OneShard {
  public:
    explicit OneShard(std::uint64_t trunk_elements = 40, Job job = job_of(),
                      ShardId id = kLeadShard)
        : OneShard(model_of(trunk_elements), std::move(job), id) {}
    OneShard(const ModelDescription& model, Job job, ShardId id, ShardSetup setup = {})
        : job_(std::make_shared<Job>(std::move(job))) {
        auto plan = make_plan(model, *job_);
        REQUIRE(plan.has_value());
        plan_ = std::make_shared<Plan>(std::move(*plan));
        setup.id = id;
        setup.job = job_;
        setup.plan = plan_;
        setup.training_samples = model.training_samples;
        auto made = Shard::create(std::move(setup));
        REQUIRE(made.has_value());
        shard_ = std::move(*made);
        world_ = std::make_unique<RecordedEffects>(*shard_);
    }

    // The first weights: 1 everywhere, from worker 0.
    void initialise() {
        Initialise first;
        for (const LiveBlock& block : shard_->store().blocks()) {
            first.blocks.push_back({block.plan->id, {}, {}, floats(block.plan->elements, 1), {}});
        }
        from(0, std::move(first));
        world_->sent.clear();
    }
    void from(std::uint32_t worker, Body body, std::uint32_t incarnation = 1) {
        world_->receive({Role::worker, worker}, std::move(body), {incarnation});
    }
    void pull(std::uint32_t worker, std::uint64_t step, std::vector<BlockId> blocks = {kTrunk},
              std::uint32_t incarnation = 1, std::uint64_t acknowledged = 0) {
        PullRequest request;
        request.step = {step};
        request.request = static_cast<std::uint32_t>(step);
        request.acknowledged = {acknowledged};
        request.blocks = std::move(blocks);
        from(worker, std::move(request), incarnation);
    }
    GradientBlock gradient(BlockId id, float value = 1, Version base = {}) const {
        const Block& block = plan_->block(id);
        return {id, block.owners, Epoch{1}, base, floats(block.elements, value), {}};
    }
    Push push_of(std::uint64_t step, std::vector<GradientBlock> blocks,
                 std::uint32_t part = 0) const {
        Push push;
        push.step = {step};
        push.part = {part};
        push.batch = {0, 0, 1};
        push.samples = 64;
        push.blocks = std::move(blocks);
        return push;
    }
    // What the shard now holds.
    float weight(BlockId id) { return value_of(block(id).weight_payload()); }
    std::uint64_t version(BlockId id) { return block(id).version.value; }
    LiveBlock& block(BlockId id) {
        LiveBlock* found = shard_->store().find(id);
        REQUIRE(found != nullptr);
        return *found;
    }
    // The last body of type T sent.
    template <class T>
    T last() const {
        const auto all = world_->of<T>();
        REQUIRE(!all.empty());
        return all.back().second;
    }
    template <class T>
    std::size_t count() const {
        return world_->of<T>().size();
    }
    // A value of the shard's next heartbeat; -1 if it does not name it.
    double reported(const std::string& name) {
        world_->give(TimerFired{{}, {1, 0}});
        for (const NamedValue& value : last<Status>().values) {
            if (value.name == name) return value.value;
        }
        return -1;
    }
    std::size_t warnings() const {
        return static_cast<std::size_t>(
            std::count_if(world_->logs.begin(), world_->logs.end(),
                          [](const auto& line) { return line.first == LogLevel::warning; }));
    }

    const Books& books() const {
        CHECK(shard_->books().balance("the shard under test").has_value());
        return shard_->books();
    }
    Shard& shard() { return *shard_; }
    RecordedEffects& world() { return *world_; }
    const Plan& plan() const { return *plan_; }
    const Job& job() const { return *job_; }

  private:
    std::shared_ptr<Job> job_;
    std::shared_ptr<Plan> plan_;
    std::unique_ptr<Shard> shard_;
    std::unique_ptr<RecordedEffects> world_;
};

}  // namespace detente::test
