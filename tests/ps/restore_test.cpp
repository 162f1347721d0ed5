// A shard that is restored from a checkpoint: what it goes on from, and what it says of the rest.
#include <catch2/catch.hpp>

#include "common/runtime/disk.h"
#include "ps/lost_updates.h"
#include "ps/slice.h"
#include "tests/ps/one_shard.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

using test::kHead;
using test::kTrunk;
using test::OneShard;

// What a checkpoint of it holds, through the disk.
ShardSlice checkpoint_of(OneShard& shard) {
    const TemporaryFolder folder;
    shard.world().receive(kCoordinator, CheckpointRequest{1, folder.path()});
    REQUIRE(write_whole_file(shard.world().stored.back()).has_value());
    auto slice = read_slice(shard.world().stored.back().path);
    REQUIRE(slice.has_value());
    shard.world().stored.back().pieces.clear();
    shard.world().give(Stored{{shard.world().stored.size()}, {}});
    return *slice;
}

// What its ledger has as applied since entry `from`.
std::vector<LostRecord> applied_since(const OneShard& shard, std::size_t from) {
    std::vector<LostRecord> lost;
    const auto records = const_cast<OneShard&>(shard).world().records<VerdictRecord>();
    for (std::size_t i = from; i < records.size(); ++i) {
        LostRecord one{records[i].worker,
                       records[i].incarnation,
                       records[i].step,
                       records[i].part,
                       records[i].epoch,
                       {},
                       {},
                       "because"};
        for (const auto& row : records[i].rows) {
            one.blocks.push_back(row.block);
            one.versions.push_back(row.version);
        }
        lost.push_back(std::move(one));
    }
    return lost;
}

OneShard restored(const ShardSlice& slice, std::vector<LostRecord> lost, Job job = test::job_of(),
                  bool same_blocks = true) {
    ShardSetup setup;
    setup.epoch = Epoch{2};
    setup.restored_from = "RUN/checkpoints/1";
    for (const BlockSlice& block : slice.blocks) {
        BlockContents contents{block.version, block.updates,      block.samples_applied,
                               block.policy,  block.policy_state, block.vectors,
                               block.memory,  block.weights,      block.slots};
        setup.restored.emplace_back(block.block, std::move(contents));
    }
    setup.former.push_back({same_blocks, slice.extras.at("duplicates"), std::move(lost)});
    OneShard shard(test::model_of(40), std::move(job), kLeadShard, std::move(setup));
    shard.world().give(Started{});
    return shard;
}

Push with_epoch(Push push, std::uint32_t epoch) {
    for (GradientBlock& block : push.blocks) block.epoch = Epoch{epoch};
    return push;
}

}  // namespace

TEST_CASE("restore: updates acknowledged after the checkpoint are lost, listed and counted") {
    OneShard before;
    before.initialise();
    before.from(0, before.push_of(1, {before.gradient(kTrunk), before.gradient(kHead)}));
    const ShardSlice slice = checkpoint_of(before);
    before.from(0, before.push_of(2, {before.gradient(kTrunk, 1, {1})}));
    before.from(1, before.push_of(1, {before.gradient(kTrunk, 1, {1}), before.gradient(kHead)}));
    const float at_checkpoint = test::value_of(slice.blocks.at(0).weights);
    CHECK(before.weight(kTrunk) != at_checkpoint);

    OneShard after = restored(slice, applied_since(before, 1));
    CHECK(after.weight(kTrunk) == at_checkpoint);
    CHECK(after.version(kTrunk) == 1);
    const Books books = after.books();
    CHECK(books.applied == 2);  // what the checkpoint has
    CHECK(books.lost == 3);     // what came after it
    CHECK(books.computed == 5);
    CHECK(books.in_flight == 0);
    CHECK(after.reported("updates.taken_back") == 3);
    const auto lost = after.world().records<LostRecord>();
    REQUIRE(lost.size() == 2);
    CHECK(lost[0].worker == WorkerId{0});
    CHECK(lost[0].step == Step{2});
    CHECK(lost[0].blocks == std::vector{kTrunk});
    CHECK(lost[0].reason == "because");
    CHECK(lost[1].worker == WorkerId{1});
    CHECK(lost[1].incarnation == Incarnation{1});
    CHECK(lost[1].blocks == std::vector{kTrunk, kHead});
    const auto control = after.world().records<ControlRecord>();
    REQUIRE(control.size() == 2);
    CHECK(control[1].what ==
          "restored RUN/checkpoints/1 under epoch 2: 3 updates applied after it are lost");
}

TEST_CASE("restore: a re-send across epochs gets `lost`, what was judged before its verdict") {
    OneShard before;
    before.initialise();
    const Push judged = before.push_of(1, {before.gradient(kTrunk), before.gradient(kHead)});
    before.from(0, judged);
    const ShardSlice slice = checkpoint_of(before);
    const Push taken_back = before.push_of(2, {before.gradient(kTrunk, 1, {1})});
    before.from(0, taken_back);
    OneShard after = restored(slice, applied_since(before, 1));

    after.from(0, judged);
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    CHECK(after.last<PushReply>().verdicts.at(0).epoch == Epoch{1});
    for (int i = 0; i < 2; ++i) {
        after.from(0, taken_back);
        const BlockVerdict verdict = after.last<PushReply>().verdicts.at(0);
        CHECK(verdict.verdict == Verdict::lost);
        CHECK(verdict.advice == Advice::refresh);
        CHECK(verdict.reason == ErrorCode::wrong_epoch);
        CHECK(verdict.epoch == Epoch{2});
    }
    CHECK(after.books().lost == 1);
    // A gradient that nobody had judged is of another epoch, and can be computed again.
    after.from(0, after.push_of(3, {after.gradient(kTrunk, 1, {1})}));
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::rejected);
    CHECK(after.last<PushReply>().verdicts.at(0).reason == ErrorCode::wrong_epoch);
    CHECK(after.version(kTrunk) == 1);
    // The conversation goes on.
    after.from(0, with_epoch(after.push_of(4, {after.gradient(kTrunk, 1, {1})}), 2));
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    CHECK(after.version(kTrunk) == 2);
}

TEST_CASE("restore: what was in flight at the checkpoint is lost once, with its reason") {
    OneShard before;
    before.initialise();
    before.pull(0, 1);  // two blocks in flight; one is applied after the checkpoint
    const ShardSlice slice = checkpoint_of(before);
    const Push half = before.push_of(1, {before.gradient(kTrunk)});
    before.from(0, half);
    OneShard after = restored(slice, applied_since(before, 0));
    CHECK(after.books().computed == 2);
    CHECK(after.books().lost == 2);
    CHECK(after.books().in_flight == 0);
    const auto closed = after.world().records<ClosedRecord>();
    REQUIRE(closed.size() == 1);
    CHECK(closed[0].worker == WorkerId{0});
    CHECK(closed[0].step == Step{1});
    CHECK(closed[0].blocks == 1);
    CHECK(closed[0].lost);
    CHECK(closed[0].reason == "in flight when the checkpoint that was restored was made");
    after.from(0, after.push_of(1, {after.gradient(kHead)}, 1));
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::lost);
    after.world().receive(kCoordinator, Stop{"over"});
    CHECK_FALSE(after.last<Stopped>().failed);
}

TEST_CASE("restore: a worker's next incarnation begins at step 1 again") {
    OneShard before;
    before.initialise();
    for (std::uint64_t step = 1; step <= 5; ++step) {
        before.pull(0, step, {kTrunk}, 1, step - 1);
        before.from(0, before.push_of(step, {before.gradient(kTrunk, 1, {step - 1}),
                                             before.gradient(kHead, 1, {step - 1})}));
    }
    OneShard after = restored(checkpoint_of(before), {});
    after.pull(0, 1, {kTrunk}, 2);
    REQUIRE(after.count<PullReply>() == 1);
    after.from(0, with_epoch(after.push_of(1, {after.gradient(kTrunk, 1, {5})}), 2), 2);
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::applied);
    CHECK(after.books().applied == 11);
}

TEST_CASE("restore: more updates than a worker may leave unsettled are all listed and counted") {
    OneShard before;
    before.initialise();
    const ShardSlice slice = checkpoint_of(before);
    for (std::uint64_t step = 1; step <= 50; ++step) {
        before.pull(0, step, {kTrunk}, 1, step - 1);
        before.from(0, before.push_of(step, {before.gradient(kTrunk, 1, {step - 1}),
                                             before.gradient(kHead, 1, {step - 1})}));
    }
    OneShard after = restored(slice, applied_since(before, 0));
    CHECK(after.books().lost == 100);
    CHECK(after.world().records<LostRecord>().size() == 50);
    after.from(0, after.push_of(50, {after.gradient(kTrunk, 1, {49})}));
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::lost);
    after.pull(0, 51, {kTrunk}, 1, 50);
    CHECK(after.count<Refusal>() == 0);
}

TEST_CASE("restore: where blocks have moved the lead shard takes over the books alone") {
    OneShard before;
    before.initialise();
    const Push judged = before.push_of(1, {before.gradient(kTrunk), before.gradient(kHead)});
    before.from(0, judged);
    const ShardSlice slice = checkpoint_of(before);
    before.from(0, before.push_of(2, {before.gradient(kTrunk, 1, {1})}));
    OneShard after = restored(slice, applied_since(before, 1), test::job_of(), false);
    CHECK(after.books().applied == 2);
    CHECK(after.books().lost == 1);
    after.from(0, judged);  // its parts were others: no verdict to repeat
    CHECK(after.last<PushReply>().verdicts.at(0).verdict == Verdict::rejected);
}

TEST_CASE("restore: a policy's state of each block comes back, to the policy that made it") {
    OneShard before;
    before.initialise();
    before.block(kTrunk).policy_state.values = {1.5, -0.0, 1e-310};
    const ShardSlice slice = checkpoint_of(before);
    OneShard same = restored(slice, {});
    const std::vector<double>& values = same.block(kTrunk).policy_state.values;
    REQUIRE(values.size() == 3);
    CHECK(values[0] == 1.5);
    CHECK(std::signbit(values[1]));
    CHECK(values[2] == 1e-310);
    CHECK(same.block(kHead).policy_state.values.empty());
    Job other = test::job_of();
    other.policy.name = "async";
    other.policy.parameters = {};
    CHECK(restored(slice, {}, other).block(kTrunk).policy_state.values.empty());
}

TEST_CASE("duplicates: a restored table drops gradients that were buffered, their bytes are gone") {
    constexpr WorkerId kWorker{4};
    Duplicates table(3);
    REQUIRE(table.open(kWorker, Step{1}).has_value());
    std::vector<BlockVerdict> verdicts(2);
    verdicts[0].block = BlockId{0};
    verdicts[0].verdict = Verdict::buffered;
    verdicts[1].block = BlockId{1};
    verdicts[1].step_scale = 0.1F;
    REQUIRE(table.record(kWorker, Step{1}, Part{0}, verdicts).has_value());
    REQUIRE(table.books().in_flight == 2);  // the buffered one, and block 2
    Duplicates again(0);
    REQUIRE(again.restore(table.save()).has_value());
    CHECK(again.books().lost == 1);
    CHECK(again.books().in_flight == 1);
    const auto closed = again.lose_restored();
    REQUIRE(closed.size() == 1);
    CHECK(closed[0].worker == kWorker);
    CHECK(closed[0].step.blocks == 2);
    CHECK(again.books().lost == 2);
    CHECK(again.books().balance("it").has_value());
    const auto* kept = again.judged(kWorker, Step{1}, Part{0});
    REQUIRE(kept != nullptr);
    CHECK(kept->at(0).verdict == Verdict::lost);
    CHECK(kept->at(1).verdict == Verdict::applied);
    CHECK(kept->at(1).step_scale == 0.1F);
}

TEST_CASE("duplicates: what is saved comes back, cut off after any word, or garbage, is refused") {
    Duplicates table(2);
    for (std::uint32_t worker = 0; worker < 3; ++worker) {
        std::vector<Duplicates::Closed> lost;
        REQUIRE(table.meet(WorkerId{worker}, Incarnation{1 + worker}, lost).has_value());
        REQUIRE(table.open(WorkerId{worker}, Step{7}).has_value());
        std::vector<BlockVerdict> one(1);
        REQUIRE(table.record(WorkerId{worker}, Step{7}, Part{0}, one).has_value());
    }
    const std::string saved = table.save();
    Duplicates again(0);
    REQUIRE(again.restore(saved).has_value());
    CHECK(again.save() == saved);
    CHECK(again.newest_incarnation() == Incarnation{3});
    for (std::size_t end = saved.rfind(' '); end != std::string::npos && end > 0;
         end = saved.rfind(' ', end - 1)) {
        INFO(saved.substr(0, end));
        CHECK(Duplicates(0).restore(saved.substr(0, end)).has_error());
    }
    for (const char* garbage :
         {"", "leases 1 2 3", "duplicates 1 1 0 0 0 0 0 0 0", "duplicates 2 2 9 0 0 0 0 9 0 0",
          "duplicates 2 2 9 0 0 0 0 0 0 0", "duplicates 2 2 4 0 0 0 0 4 1 0 1 7 9 0",
          "duplicates 2 2 0 0 0 0 0 0 0 1\n4000000000 1 0 0 0"}) {
        const auto refused = Duplicates(0).restore(garbage);
        REQUIRE(refused.has_error());
        CHECK(refused.error().code == ErrorCode::bad_checkpoint);
    }
}

TEST_CASE("duplicates: what was staged when the table was saved is lost, listed, and answered so") {
    Duplicates table(3);
    std::vector<Duplicates::Closed> lost;
    REQUIRE(table.meet(WorkerId{0}, Incarnation{1}, lost).has_value());
    REQUIRE(table.open(WorkerId{0}, Step{7}).has_value());
    REQUIRE(table.stage(WorkerId{0}, Step{7}, 2).has_value());
    const Duplicates::ClosedBy kept{WorkerId{0}, Incarnation{1}, {Step{7}, 2}};
    Duplicates again(0);
    REQUIRE(again.restore(table.save({kept})).has_value());
    const auto closed = again.lose_restored();
    std::uint32_t blocks = 0;
    for (const auto& one : closed) blocks += one.step.blocks;
    CHECK(blocks == 3);  // the staged two, and the one that was still open
    CHECK(again.books().lost == 3);
    CHECK(again.books().in_flight == 0);
    CHECK(again.books().balance("it").has_value());
    CHECK(again.lost_by_restore(WorkerId{0}, Step{7}));
}

}  // namespace detente
