// A checkpoint of a cluster that resolves across workers, and what goes on from it.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "ps/checkpoint.h"
#include "ps/restore.h"
#include "tests/sim/cluster.h"
#include "tests/temporary_folder.h"

namespace detente::test {
namespace {

ClusterOptions projecting_servers(std::uint32_t servers) {
    ClusterOptions options = small_cluster();
    options.job.servers = servers;
    options.job.split_tasks = true;
    options.job.aggregator = {"sum", {}};
    options.job.across.method = AcrossMethod::project;
    options.job.block_bytes = 4096;
    options.model.trunk_elements = 5000;
    options.model.tasks = 3;
    return options;
}

// Made in the middle of a run on two servers.
class MadeCheckpoint {
  public:
    explicit MadeCheckpoint(const ClusterOptions& options = projecting_servers(2)) {
        Cluster cluster(options);
        cluster.after_start(std::chrono::milliseconds(40), [&] {
            cluster.send_to_coordinator(CheckpointRequest{1, directory()});
        });
        const auto& written = cluster.coordinator().checkpoints;
        REQUIRE(cluster.run_until([&] { return written.size() == 2; }));
        std::filesystem::create_directories(directory());
        for (const auto& [path, bytes] : cluster.world().files()) {
            std::ofstream(path, std::ios::binary)
                .write(reinterpret_cast<const char*>(bytes.data()),
                       static_cast<std::streamsize>(bytes.size()));
        }
        const auto merged =
            merge_checkpoint(directory(), cluster.plan(), cluster.model(), {1, Generation{1}, ""});
        REQUIRE(merged.has_value());
        for (std::uint32_t shard = 0; shard < 2; ++shard) {
            const auto slice = read_slice(directory() + "/" + slice_file_name(ShardId{shard}));
            REQUIRE(slice.has_value());
            for (const BlockSlice& block : slice->blocks) memory[block.block] = block.memory;
        }
    }
    ClusterOptions resumed(std::uint32_t servers) const {
        ClusterOptions options = projecting_servers(servers);
        options.incarnation = Incarnation{2};
        options.restore = [this](ShardSetup& setup, const ModelDescription& model) {
            const auto restored = restore_shard(setup, directory(), model);
            INFO((restored ? "" : restored.error().text));
            REQUIRE(restored.has_value());
        };
        return options;
    }
    std::string directory() const { return folder_ / "checkpoints/1"; }
    std::map<BlockId, SavedMemory> memory;

  private:
    TemporaryFolder folder_;
};

}  // namespace

TEST_CASE("across: a checkpoint has each task's average and gives it to whichever shard follows") {
    const MadeCheckpoint made;
    for (const std::uint32_t servers : {1U, 2U, 4U}) {
        INFO(servers << " servers");
        const ClusterOptions options = made.resumed(servers);
        Cluster cluster(options);
        std::size_t remembered = 0;
        for (const Block& block : cluster.plan().blocks) {
            LiveBlock* live = cluster.shard(block.home.value).store().find(block.id);
            REQUIRE(live != nullptr);
            const SavedMemory saved = live->memory.save();
            CHECK(saved == made.memory.at(block.id));
            CHECK(saved.tasks.size() == (block.shared() ? 3 : 0));
            remembered += saved.tasks.size();
        }
        CHECK(remembered > 3);
        REQUIRE(cluster.run());
        CHECK(cluster.finished_batches == 3 * batches_of(options));
        CHECK(cluster.leased_batches < 3 * batches_of(options));
    }
}

TEST_CASE("across: owners that are fewer than remembered are refused with what to do about it") {
    const MadeCheckpoint made;
    ClusterOptions options = made.resumed(2);
    options.job.tasks = {{"task1", {"trunk.*"}}};
    Cluster planned(projecting_servers(2));
    const auto plan = make_plan(planned.model(), options.job);
    REQUIRE(plan.has_value());
    ShardSetup setup;
    setup.job = std::make_shared<Job>(options.job);
    setup.plan = std::make_shared<Plan>(*plan);
    std::string refusals;
    for (std::uint32_t shard = 0; shard < 2; ++shard) {
        setup.id = ShardId{shard};
        const auto restored = restore_shard(setup, made.directory(), planned.model());
        REQUIRE(restored.has_error());
        CHECK(restored.error().code == ErrorCode::bad_checkpoint);
        refusals = restored.error().text;
        INFO(refusals);
        CHECK_THAT(refusals, Catch::Contains(made.directory() + ": block ") &&
                                 Catch::Contains("of tensor 'trunk.weight'") &&
                                 Catch::Contains("owners only (tasks: task0, task2)") &&
                                 Catch::Contains("found those of tasks: task0, task1, task2") &&
                                 Catch::Contains("resume with the [[task]] and [[mask]] entries"));
    }
    // As it says: without [across] it goes.
    options.job.across.method = AcrossMethod::off;
    setup.job = std::make_shared<Job>(options.job);
    CHECK(restore_shard(setup, made.directory(), planned.model()).has_value());
}

TEST_CASE("across: owners that are more than remembered are taken as they are") {
    ClusterOptions narrow = projecting_servers(2);
    narrow.job.tasks = {{"task1", {"trunk.*"}}};
    const MadeCheckpoint made(narrow);
    const ClusterOptions options = made.resumed(2);
    Cluster cluster(options);
    std::size_t remembered = 0;
    for (const Block& block : cluster.plan().blocks) {
        if (!block.shared()) continue;
        const SavedMemory saved =
            cluster.shard(block.home.value).store().find(block.id)->memory.save();
        CHECK(block.owners.count() == 3);
        CHECK(saved.tasks.size() == 2);
        ++remembered;
    }
    CHECK(remembered > 0);
    REQUIRE(cluster.run());
}

TEST_CASE("across: a job that no longer resolves across workers goes on without the averages") {
    const MadeCheckpoint made;
    ClusterOptions options = made.resumed(2);
    options.job.across.method = AcrossMethod::off;
    Cluster cluster(options);
    CHECK(cluster.shard(0).store().blocks().front().memory.save().tasks.empty());
    REQUIRE(cluster.run());
    CHECK(cluster.finished_batches == 3 * batches_of(options));
}

}  // namespace detente::test
