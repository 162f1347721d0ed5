// What policies keep for a block, in a checkpoint and out of it again.
#include "ps/policy_vectors.h"

#include <catch2/catch.hpp>

#include "common/runtime/disk.h"
#include "ps/slice.h"
#include "tests/ps/one_shard.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

using test::kHead;
using test::kTrunk;
using test::OneShard;

Job job_with(PolicyConfig policy, Admission admission) {
    Job job = test::job_of();
    job.rule.learning_rate = 0.1;
    job.policy = std::move(policy);
    job.admission = admission;
    return job;
}

ShardSlice slice_of(OneShard& shard) {
    const TemporaryFolder folder;
    shard.world().receive(kCoordinator, CheckpointRequest{1, folder.path()});
    REQUIRE(write_whole_file(shard.world().stored.back()).has_value());
    auto slice = read_slice(shard.world().stored.back().path);
    REQUIRE(slice.has_value());
    shard.world().stored.back().pieces.clear();
    shard.world().give(Stored{{shard.world().stored.size()}, {}});
    return *slice;
}

OneShard restored_with(const ShardSlice& slice, Job job) {
    ShardSetup setup;
    setup.epoch = Epoch{2};
    setup.restored_from = "RUN/checkpoints/1";
    for (const BlockSlice& block : slice.blocks) {
        BlockContents contents{block.version, block.updates,      block.samples_applied,
                               block.policy,  block.policy_state, block.vectors,
                               block.memory,  block.weights,      block.slots};
        setup.restored.emplace_back(block.block, std::move(contents));
    }
    setup.former.push_back({true, slice.extras.at("duplicates"), {}});
    OneShard shard(test::model_of(40), std::move(job), kLeadShard, std::move(setup));
    shard.world().give(Started{});
    return shard;
}

// A shard and the steps its workers are at; a worker pulls, and pushes `lag` others later.
class Play {
  public:
    explicit Play(OneShard shard, std::uint32_t epoch, std::uint32_t incarnation)
        : shard_(std::move(shard)), epoch_(epoch), incarnation_(incarnation) {}
    OneShard& shard() { return shard_; }
    // Each of three workers in turn, with weights as old as that makes them; at the end nothing is
    // in flight.
    void round(int seed) {
        for (std::uint32_t worker = 0; worker < 3; ++worker) pull(worker);
        for (std::uint32_t worker = 0; worker < 3; ++worker) push(worker, seed);
    }

  private:
    void pull(std::uint32_t worker) {
        const std::uint64_t step = ++steps_[worker];
        PullRequest request;
        request.step = {step};
        request.acknowledged = {step - 1};
        request.blocks = {kTrunk, kHead};
        shard_.from(worker, request, incarnation_);
        bases_[worker] = {shard_.block(kTrunk).version, shard_.block(kHead).version};
    }
    void push(std::uint32_t worker, int seed) {
        Push push;
        push.step = {steps_[worker]};
        push.batch = {0, 0, 1};
        push.samples = 64;
        const BlockId ids[] = {kTrunk, kHead};
        for (std::size_t b = 0; b < 2; ++b) {
            const Block& plan = shard_.plan().block(ids[b]);
            auto buffer = std::make_shared<AlignedBuffer>(plan.elements * sizeof(float));
            for (std::size_t i = 0; i < plan.elements; ++i) {
                const auto at = static_cast<double>(seed + 7 * static_cast<int>(worker));
                buffer->floats()[i] = static_cast<float>(std::sin(at + static_cast<double>(i)));
            }
            push.blocks.push_back({ids[b],
                                   plan.owners,
                                   Epoch{epoch_},
                                   bases_[worker].at(b),
                                   payload_of(std::move(buffer)),
                                   {}});
        }
        shard_.from(worker, push, incarnation_);
        REQUIRE(shard_.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    }

    OneShard shard_;
    std::uint32_t epoch_;
    std::uint32_t incarnation_;
    std::map<std::uint32_t, std::uint64_t> steps_;
    std::map<std::uint32_t, std::vector<Version>> bases_;
};

std::vector<float> weights_of(OneShard& shard) {
    std::vector<float> all = test::values_of(shard.block(kTrunk).weight_payload());
    const auto head = test::values_of(shard.block(kHead).weight_payload());
    all.insert(all.end(), head.begin(), head.end());
    return all;
}

const std::vector<PolicyConfig>& policies_with_vectors() {
    static const std::vector<PolicyConfig> policies = {{"dc_asgd", {{"variant", "c"}}},
                                                       {"dc_asgd", {{"variant", "a"}}},
                                                       {"dana_zero", {}},
                                                       {"gap_aware", {}},
                                                       {"delayed_nesterov", {{"n", "4"}}}};
    return policies;
}

}  // namespace

TEST_CASE("vectors: a resumed run equals the uninterrupted one that took the same checkpoint") {
    for (const Admission admission : {Admission::block, Admission::step}) {
        for (const PolicyConfig& policy : policies_with_vectors()) {
            INFO(policy.name << (admission == Admission::step ? ", step" : ", block"));
            const Job job = job_with(policy, admission);
            Play whole(OneShard(40, job), 1, 1);
            whole.shard().initialise();
            for (int seed = 0; seed < 5; ++seed) whole.round(seed);
            const ShardSlice slice = slice_of(whole.shard());
            Play resumed(restored_with(slice, job), 2, 2);
            CHECK(weights_of(resumed.shard()) == weights_of(whole.shard()));
            for (int seed = 5; seed < 9; ++seed) {
                whole.round(seed);
                resumed.round(seed);
                REQUIRE(weights_of(resumed.shard()) == weights_of(whole.shard()));
            }
            // The vectors matter: without them it would have gone elsewhere.
            ShardSlice without = slice;
            for (BlockSlice& block : without.blocks) block.vectors = {};
            Play other(restored_with(without, job), 2, 2);
            for (int seed = 5; seed < 9; ++seed) other.round(seed);
            const bool keeps = policy.parameters.empty() || policy.parameters[0].second != "c";
            CHECK((weights_of(other.shard()) != weights_of(whole.shard())) == keeps);
        }
    }
}

TEST_CASE("vectors: a checkpoint holds them as they were, whatever comes while it is written") {
    Play play(OneShard(40, job_with({"dana_zero", {}}, Admission::block)), 1, 1);
    play.shard().initialise();
    play.round(1);
    const TemporaryFolder folder;
    play.shard().world().receive(kCoordinator, CheckpointRequest{1, folder.path()});
    const StoreOp operation = play.shard().world().stored.back();
    REQUIRE(write_whole_file({folder / "before", operation.pieces}).has_value());
    for (int seed = 2; seed < 6; ++seed) play.round(seed);
    REQUIRE(write_whole_file({folder / "after", operation.pieces}).has_value());
    CHECK(bytes_of_file(folder / "before") == bytes_of_file(folder / "after"));
}

TEST_CASE("vectors: of workers that the resumed job does not have go as if they had left") {
    Play play(OneShard(40, job_with({"dana_zero", {}}, Admission::block)), 1, 1);
    play.shard().initialise();
    for (int seed = 0; seed < 3; ++seed) play.round(seed);
    const ShardSlice slice = slice_of(play.shard());
    Job smaller = job_with({"dana_zero", {}}, Admission::block);
    smaller.workers = 1;
    OneShard resumed = restored_with(slice, smaller);
    const SavedVectors kept = resumed.block(kTrunk).vectors.save();
    REQUIRE(kept.workers.size() == 1);
    const auto sum = test::values_of(kept.block.at(0));
    const auto own = test::values_of(kept.workers.at(WorkerId{0}).at(0));
    for (std::size_t i = 0; i < sum.size(); ++i) CHECK(sum[i] == Approx(own[i]).margin(1e-6));
}

TEST_CASE("vectors: another policy, or another variant of it, begins anew") {
    Play play(OneShard(40, job_with({"dc_asgd", {{"variant", "a"}}}, Admission::block)), 1, 1);
    play.shard().initialise();
    for (int seed = 0; seed < 3; ++seed) play.round(seed);
    const ShardSlice slice = slice_of(play.shard());
    for (const PolicyConfig& policy :
         {PolicyConfig{"dc_asgd", {{"variant", "c"}}}, PolicyConfig{"gap_aware", {}}}) {
        OneShard resumed = restored_with(slice, job_with(policy, Admission::block));
        CHECK(resumed.block(kTrunk).vectors.save().block.empty());
    }
}

}  // namespace detente
