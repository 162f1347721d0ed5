// A run under step scope that ends in the middle and goes on from its checkpoint: books, losses,
// batches, and that no step is in one shard's slice and missing from another's.
#include <filesystem>
#include <fstream>

#include "ps/checkpoint.h"
#include "ps/ledger.h"
#include "ps/restore.h"
#include "tests/sim/steps_cluster.h"
#include "tests/temporary_folder.h"

namespace detente::test {
namespace {

constexpr Generation kGeneration{1};

// A run's folder as it lies on the disk after its servers were killed.
class Killed {
  public:
    explicit Killed(const ClusterOptions& options, Nanos checkpoint_at, Nanos killed_after) {
        Cluster cluster(options);
        cluster.after_start(checkpoint_at, [&] {
            cluster.send_to_coordinator(CheckpointRequest{1, directory()});
        });
        const auto& written = cluster.coordinator().checkpoints;
        REQUIRE(cluster.run_until([&] { return written.size() == options.job.shards(); }));
        cluster.run_until([] { return false; }, cluster.world().now() + killed_after);
        before = cluster.books();
        for (const auto& [shard, reply] : written) REQUIRE(reply.error.empty());
        std::filesystem::create_directories(directory());
        std::filesystem::create_directories(folder_ / "ledger");
        for (const auto& [path, bytes] : cluster.world().files()) {
            std::ofstream(path, std::ios::binary)
                .write(reinterpret_cast<const char*>(bytes.data()),
                       static_cast<std::streamsize>(bytes.size()));
        }
        const auto merged =
            merge_checkpoint(directory(), cluster.plan(), cluster.model(), {1, kGeneration, ""});
        REQUIRE(merged.has_value());
        manifest = *merged;
        for (std::uint32_t shard = 0; shard < options.job.shards(); ++shard) {
            LedgerOrigin origin;
            origin.node = node_of(ShardId{shard});
            origin.generation = kGeneration;
            const std::string name = "ledger/shard-" + std::to_string(shard) + ".1.ledger";
            auto writer = LedgerWriter::create(folder_ / name, origin);
            REQUIRE(writer.has_value());
            for (const LedgerEntry& entry : cluster.world().ledger(origin.node)) {
                REQUIRE((*writer)->append(entry).has_value());
            }
            REQUIRE((*writer)->flush().has_value());
        }
    }
    std::string directory() const { return folder_ / "checkpoints/1"; }
    Books before;
    Manifest manifest;

  private:
    TemporaryFolder folder_;
};

ClusterOptions resumed_from(const Killed& killed, ClusterOptions options) {
    options.incarnation = next(killed.manifest.newest_incarnation);
    options.restore = [&killed](ShardSetup& setup, const ModelDescription& model) {
        const auto gaps = restore_shard(setup, killed.directory(), model);
        REQUIRE(gaps.has_value());
        REQUIRE(gaps->empty());
    };
    return options;
}

using Update = std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>;

// Steps of the run before that each shard's new ledger lists as lost after having been applied.
std::vector<std::set<Update>> taken_back(Cluster& cluster) {
    std::vector<std::set<Update>> shards;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        std::set<Update>& steps = shards.emplace_back();
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* lost = std::get_if<LostRecord>(&entry.record);
            if (lost == nullptr) continue;
            steps.emplace(lost->worker.value, lost->incarnation.value, lost->step.value);
        }
    }
    return shards;
}

// Blocks the new ledgers list as lost, for whatever reason.
std::uint64_t listed(Cluster& cluster) {
    std::uint64_t blocks = 0;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            if (const auto* lost = std::get_if<LostRecord>(&entry.record)) {
                blocks += lost->blocks.size();
            } else if (const auto* closed = std::get_if<ClosedRecord>(&entry.record)) {
                if (closed->lost) blocks += closed->blocks;
            }
        }
    }
    return blocks;
}

ClusterOptions faulty(const std::string& policy, std::uint64_t seed) {
    ClusterOptions options = cluster_of(policy, seed);
    options.world.network.drop = 0.05;
    options.world.network.duplicate = 0.05;
    options.world.network.jitter = Nanos(1'000'000);
    return options;
}

}  // namespace

TEST_CASE("resume under step scope: every policy finishes, books balance, losses are listed") {
    for (const std::string& policy : step_policies()) {
        std::uint64_t lost = 0;
        for (std::uint64_t seed = 1; seed <= 6; ++seed) {
            INFO(policy << " seed " << seed);
            const ClusterOptions options = faulty(policy, seed);
            const Nanos at(static_cast<std::int64_t>(6'000'000 + 1'500'000 * seed));
            const Killed killed(options, at, Nanos(8'000'000));
            CHECK(killed.manifest.lowest_version == killed.manifest.highest_version);
            Cluster cluster(resumed_from(killed, options));
            REQUIRE(cluster.run());
            require_no_failure(cluster);
            CHECK(cluster.finished_batches == batches_of(options));
            const Books books = cluster.books();
            CHECK(books.in_flight == 0);
            CHECK(books.lost == listed(cluster));
            lost += books.lost;
            require_same_on_all_shards(cluster);
            // Steps that only some shards had applied when they were killed are listed by those;
            // all acted in one order, so one has all that another has.
            for (const auto& a : taken_back(cluster)) {
                for (const auto& b : taken_back(cluster)) {
                    const auto& [fewer, more] =
                        a.size() < b.size() ? std::tie(a, b) : std::tie(b, a);
                    CHECK(std::includes(more.begin(), more.end(), fewer.begin(), fewer.end()));
                }
            }
            // Nothing the first run had computed by then vanished from the books.
            CHECK(books.computed >= killed.before.computed);
        }
        INFO(policy);
        CHECK(lost > 0);
    }
}

TEST_CASE("resume under step scope: on another number of shards") {
    for (const std::string policy : {"bsp", "fedbuff", "ssp", "kardam"}) {
        INFO(policy);
        ClusterOptions options = faulty(policy, 3);
        const Killed killed(options, Nanos(12'000'000), Nanos(6'000'000));
        options.job.servers = 3;
        Cluster cluster(resumed_from(killed, options));
        REQUIRE(cluster.run());
        require_no_failure(cluster);
        CHECK(cluster.finished_batches == batches_of(options));
        CHECK(cluster.books().in_flight == 0);
        require_same_on_all_shards(cluster);
    }
}

TEST_CASE("resume under step scope: a decision of the epoch before is refused, not acted on") {
    const ClusterOptions options = cluster_of("bsp", 5);
    const Killed killed(options, Nanos(12'000'000), Nanos(6'000'000));
    Cluster cluster(resumed_from(killed, options));
    cluster.after_start(Nanos(3'000'000), [&] {
        Message late;
        late.envelope.from = node_of(kLeadShard);
        StageDecision decision;
        decision.sequence = {Epoch{1}, 1};
        decision.aborts.push_back({{WorkerId{0}, Incarnation{2}, Step{1}}, {}, {}});
        late.body = std::move(decision);
        cluster.world().post(node_of(ShardId{1}), Received{std::move(late)});
    });
    REQUIRE(cluster.run());
    require_no_failure(cluster);
    CHECK(cluster.finished_batches == batches_of(options));
    double refused = 0;
    for (const NamedValue& value : cluster.coordinator().last.at(node_of(ShardId{1})).last.values) {
        if (value.name == "refused.wrong_epoch") refused = value.value;
    }
    CHECK(refused == 1);
    require_same_on_all_shards(cluster);
}

}  // namespace detente::test
