// What the ledger of a run says was applied after one of its checkpoints.
#include "ps/lost_updates.h"

#include <catch2/catch.hpp>

#include "common/runtime/disk.h"
#include "ps/ledger.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

constexpr Generation kGeneration{5};

ModelDescription model() {
    ModelDescription model;
    model.model = "one";
    model.tasks = {"a"};
    model.tensors = {{"w", {2048}, TaskSet{1}}};
    return model;
}

// RUN with two blocks, whose checkpoint has them at versions 10 and 11 of epoch 1.
class Run {
  public:
    Run() {
        Job job;
        job.block_bytes = 4096;
        auto plan = make_plan(model(), job);
        REQUIRE(plan.has_value());
        REQUIRE(plan->blocks.size() == 2);
        ShardSlice slice;
        for (const Block& planned : plan->blocks) {
            BlockSlice block;
            block.block = planned.id;
            block.epoch = Epoch{1};
            block.version = Version{10 + planned.id.value};
            block.weights = payload_of(std::make_shared<AlignedBuffer>(planned.bytes()));
            slice.blocks.push_back(std::move(block));
        }
        slice.extras["incarnation"] = "7";
        std::filesystem::create_directories(directory());
        REQUIRE(write_whole_file({directory() + "/shard-0.safetensors", *to_pieces(slice)})
                    .has_value());
        const auto merged = merge_checkpoint(directory(), *plan, model(), {3, kGeneration, ""});
        REQUIRE(merged.has_value());
        CHECK(merged->newest_incarnation == Incarnation{7});
        std::filesystem::create_directories(folder_ / "ledger");
    }
    std::string directory() const { return folder_ / "checkpoints/3"; }
    std::string ledger() const { return folder_ / "ledger/shard-0.1.ledger"; }
    std::unique_ptr<LedgerWriter> writer(Generation generation = kGeneration) const {
        LedgerOrigin origin;
        origin.node = node_of(ShardId{0});
        origin.generation = generation;
        auto writer = LedgerWriter::create(ledger(), origin);
        REQUIRE(writer.has_value());
        return std::move(*writer);
    }
    LostUpdates lost() const {
        const auto checkpoint = Checkpoint::open(directory());
        REQUIRE(checkpoint.has_value());
        return find_lost_updates(*checkpoint, ShardId{0});
    }

  private:
    TemporaryFolder folder_;
};

// A push of both blocks, as applied to these versions; 0 = rejected.
LedgerEntry push(std::uint64_t step, std::uint64_t first, std::uint64_t second,
                 std::uint32_t epoch = 1) {
    VerdictRecord record;
    record.worker = WorkerId{2};
    record.incarnation = Incarnation{1};
    record.step = Step{step};
    record.epoch = Epoch{epoch};
    const std::uint64_t versions[] = {first, second};
    for (std::uint64_t block = 0; block < 2; ++block) {
        VerdictRecord::Row row;
        row.block = BlockId{block};
        row.version = Version{versions[block]};
        if (versions[block] == 0) row.verdict = Verdict::rejected;
        record.rows.push_back(row);
    }
    return {Time{}, record};
}

}  // namespace

TEST_CASE("lost updates: what was applied to versions past the checkpoint's, block by block") {
    const Run run;
    {
        const auto writer = run.writer();
        for (const LedgerEntry& entry :
             {push(1, 10, 11), push(2, 11, 0), push(3, 0, 0), push(4, 12, 12), push(5, 0, 13)}) {
            REQUIRE(writer->append(entry).has_value());
        }
    }
    const LostUpdates lost = run.lost();
    CHECK(lost.gaps.empty());
    CHECK(lost.blocks() == 4);
    REQUIRE(lost.updates.size() == 3);
    CHECK(lost.updates[0].worker == WorkerId{2});
    CHECK(lost.updates[0].step == Step{2});
    CHECK(lost.updates[0].blocks == std::vector{BlockId{0}});
    CHECK(lost.updates[1].versions == std::vector{Version{12}, Version{12}});
    CHECK(lost.updates[2].blocks == std::vector{BlockId{1}});
    CHECK(lost.updates[2].reason == "applied after checkpoint 3, which was restored");
}

TEST_CASE("lost updates: a ledger that a crash cut off is read as far as it is whole") {
    const Run run;
    const auto writer = run.writer();
    REQUIRE(writer->append(push(2, 11, 12)).has_value());
    REQUIRE(writer->flush().has_value());
    const std::string whole = bytes_of_file(run.ledger());
    REQUIRE(writer->append(push(3, 12, 13)).has_value());
    REQUIRE(writer->flush().has_value());
    const std::string more = bytes_of_file(run.ledger());
    write_file(run.ledger(), more.substr(0, (whole.size() + more.size()) / 2));
    CHECK(run.lost().blocks() == 2);
}

TEST_CASE("lost updates: a ledger that is missing or another run's is said, not guessed") {
    const Run run;
    REQUIRE(run.lost().gaps.size() == 1);
    CHECK_THAT(run.lost().gaps[0], Catch::Contains("no ledger of shard 0"));
    REQUIRE(run.writer(Generation{6})->append(push(2, 11, 12)).has_value());
    CHECK(run.lost().updates.empty());
    REQUIRE(run.lost().gaps.size() == 1);
    CHECK_THAT(run.lost().gaps[0], Catch::Contains("is of generation 6, the checkpoint of 5"));
}

}  // namespace detente
