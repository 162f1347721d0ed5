#include "tests/sim/cluster.h"

#include <cmath>
#include <cstring>

namespace detente::test {
namespace {

// (worker, incarnation, step, block) → times applied, over all shards' ledgers.
std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint64_t, std::uint64_t>, int> applied_times(
    Cluster& cluster) {
    std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint64_t, std::uint64_t>, int> times;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* record = std::get_if<VerdictRecord>(&entry.record);
            if (record == nullptr) continue;
            for (const auto& row : record->rows) {
                if (row.verdict != Verdict::applied) continue;
                ++times[{record->worker.value, record->incarnation.value, record->step.value,
                         row.block.value}];
            }
        }
    }
    return times;
}

}  // namespace

TEST_CASE("cluster: every batch is computed and applied once, and the books balance") {
    const ClusterOptions options = small_cluster();
    Cluster cluster(options);
    REQUIRE(cluster.run());
    const Books books = cluster.books();
    const std::uint64_t blocks = cluster.plan().blocks.size();
    CHECK(books.applied == batches_of(options) * blocks);
    CHECK(books.in_flight == 0);
    CHECK(books.lost == 0);
    CHECK(books.rejected == 0);
    CHECK(cluster.finished_batches == batches_of(options));
    CHECK(cluster.leased_batches == batches_of(options));
    for (const auto& [block, version] : cluster.versions)
        CHECK(version.value == batches_of(options));
    for (const auto& [key, times] : applied_times(cluster)) CHECK(times == 1);
    CHECK(cluster.coordinator().last.size() == 5);
}

TEST_CASE("cluster: training brings the weights near the tasks' common optimum") {
    ClusterOptions options = small_cluster();
    options.job.data_epochs = 8;
    options.job.aggregator.name = "mean";
    options.model.noise = 0.01;
    Cluster cluster(options);
    REQUIRE(cluster.run());
    // Head 0's targets are (i + tensor) % 5 * .25 - .5 with tensor 1.
    const std::vector<float> weights = cluster.weights();
    const std::size_t head = options.model.trunk_elements;
    for (std::size_t i = 0; i < options.model.head_elements; ++i) {
        const double target = static_cast<double>((i + 1) % 5) * 0.25 - 0.5;
        CHECK(std::abs(weights[head + i] - target) < 0.05);
    }
}

TEST_CASE("cluster: the same seed gives the same bits, another seed others") {
    const auto digest = [](std::uint64_t seed) {
        ClusterOptions options = small_cluster(seed);
        options.world.network.jitter = Nanos(300'000);
        options.world.network.drop = 0.02;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        return std::pair(cluster.weights(), cluster.world().events());
    };
    const auto first = digest(7);
    const auto again = digest(7);
    const auto other = digest(8);
    CHECK(first.second == again.second);
    REQUIRE(first.first.size() == again.first.size());
    CHECK(std::memcmp(first.first.data(), again.first.data(), first.first.size() * sizeof(float)) ==
          0);
    CHECK(first.first != other.first);
}

TEST_CASE("staleness law: applied staleness and ages in flight sum to (N-1) per update") {
    for (const std::uint32_t workers : {1U, 2U, 5U, 9U}) {
        ClusterOptions options = small_cluster(workers);
        options.job.servers = 1;
        options.job.workers = workers;
        options.model.head_elements = 0;
        options.model.tasks = 1;
        options.job.lease_batches = 1;
        Cluster cluster(options);
        const NodeId shard = node_of(ShardId{0});
        std::size_t read = 0;
        std::uint64_t version = 0;
        std::uint64_t staleness = 0;
        std::uint64_t updates = 0;
        std::map<std::uint32_t, std::uint64_t> base;
        std::uint64_t checked = 0;
        cluster.watcher = [&](NodeId id, Time) {
            if (id != shard) return;
            const auto& ledger = cluster.world().ledger(shard);
            for (; read < ledger.size(); ++read) {
                if (const auto* pull = std::get_if<PullRecord>(&ledger[read].record)) {
                    base[pull->worker.value] = pull->versions.front().value;
                } else if (const auto* push = std::get_if<VerdictRecord>(&ledger[read].record)) {
                    ++updates;
                    staleness += push->rows.front().staleness;
                    version = push->rows.front().version.value;
                }
            }
            // Until the first worker leaves, everyone is always busy.
            if (base.size() < workers || updates + 2 * workers > batches_of(options)) return;
            std::uint64_t ages = 0;
            for (const auto& [worker, from] : base) ages += version - from;
            REQUIRE(staleness + ages == (workers - 1) * updates);
            ++checked;
        };
        REQUIRE(cluster.run());
        CHECK(checked > 50);
    }
}

TEST_CASE("staleness law: with pull_ahead = 1 mean staleness goes to 2N-1") {
    ClusterOptions options = small_cluster();
    options.job.servers = 1;
    options.job.workers = 4;
    options.job.pull_ahead = 1;
    options.job.push_pull = false;
    options.job.data_epochs = 60;
    options.model.head_elements = 0;
    options.world.network.latency = Nanos(1000);
    Cluster cluster(options);
    REQUIRE(cluster.run());
    double sum = 0;
    std::uint64_t count = 0;
    for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{0}))) {
        const auto* push = std::get_if<VerdictRecord>(&entry.record);
        if (push == nullptr) continue;
        sum += static_cast<double>(push->rows.front().staleness);
        ++count;
    }
    CHECK(sum / static_cast<double>(count) == Approx(7.0).margin(0.15));
    CHECK(cluster.books().in_flight == 0);
}

TEST_CASE("exactly once: drops, doubles and reordering change nothing in the books") {
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
        ClusterOptions options = small_cluster(seed);
        options.job.reply_deadline = std::chrono::milliseconds(20);
        options.world.network.drop = 0.05;
        options.world.network.duplicate = 0.05;
        options.world.network.jitter = Nanos(2'000'000);
        if (seed % 3 == 0) options.job.push_pull = false;
        if (seed % 4 == 0) {
            options.job.push_pull = false;
            options.job.pull_ahead = 1;
        }
        if (seed % 5 == 0) {
            options.job.policy.name = "bounded_reject";
            options.job.policy.parameters = {{"tau_max", "1"}};
            options.job.on_rejection = seed % 2 ? OnRejection::recompute : OnRejection::drop;
        }
        Cluster cluster(options);
        INFO("seed " << seed);
        REQUIRE(cluster.run());
        CHECK(cluster.world().traffic().dropped > 0);
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.books().lost == 0);
        CHECK(cluster.finished_batches == batches_of(options));
        CHECK(cluster.leased_batches == batches_of(options));
        const auto times = applied_times(cluster);
        CHECK(times.size() == cluster.books().applied);
        for (const auto& [key, count] : times) REQUIRE(count == 1);
        for (const auto& [node, last] : cluster.coordinator().last) {
            INFO(to_string(node) << ": " << last.error);
            CHECK_FALSE(last.failed);
        }
        if (seed % 5 != 0) {
            CHECK(cluster.books().applied == batches_of(options) * cluster.plan().blocks.size());
        }
    }
}

TEST_CASE("checksums: an altered block is refused, sent again, and never applied") {
    ClusterOptions options = small_cluster(3);
    options.job.reply_deadline = std::chrono::milliseconds(20);
    options.world.network.corrupt = 0;
    ClusterOptions noisy = options;
    noisy.job.workers = 1;
    options.job.workers = 1;
    Cluster clean(options);
    REQUIRE(clean.run());
    // One worker: the result does not depend on timing, so a corrupted run must give the same bits.
    noisy.world.network.corrupt = 0.05;
    Cluster corrupted(noisy);
    const bool ended = corrupted.run();
    CHECK(corrupted.world().traffic().corrupted > 0);
    REQUIRE(ended);
    CHECK(clean.weights() == corrupted.weights());
    CHECK(corrupted.books().in_flight == 0);
}

TEST_CASE("a lost worker: its steps are lost with a reason, its batches are leased again") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        ClusterOptions options = small_cluster(seed);
        Cluster cluster(options);
        INFO("seed " << seed);
        const NodeId victim = node_of(WorkerId{1});
        cluster.world().at(Time{Nanos(8'000'000 + seed * 777'777)}, [&] {
            cluster.world().crash(victim);
            cluster.world().announce_down(victim, Incarnation{1}, "killed by signal 9");
        });
        REQUIRE(cluster.run());
        CHECK(cluster.books().lost > 0);
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.finished_batches == batches_of(options));
        CHECK(cluster.leased_batches >= batches_of(options));
        std::uint64_t listed = 0;
        for (std::uint32_t i = 0; i < 2; ++i) {
            for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
                const auto* closed = std::get_if<ClosedRecord>(&entry.record);
                if (closed == nullptr || !closed->lost) continue;
                CHECK(closed->reason == "killed by signal 9");
                listed += closed->blocks;
            }
        }
        CHECK(listed == cluster.books().lost);
    }
}

TEST_CASE("a zombie: messages of a lost incarnation are refused and change nothing") {
    ClusterOptions options = small_cluster();
    Cluster cluster(options);
    const NodeId victim = node_of(WorkerId{2});
    // Declared lost while it is alive: everything it sends afterwards is refused.
    cluster.world().at(Time{Nanos(20'000'000)}, [&] {
        cluster.world().announce_down(victim, Incarnation{1}, "silent for 5 s");
    });
    cluster.run(Time{std::chrono::seconds(30)});
    REQUIRE(cluster.coordinator().last.contains(victim));
    CHECK(cluster.coordinator().last[victim].failed);
    CHECK(cluster.coordinator().last[victim].code == ErrorCode::peer_lost);
    CHECK(cluster.books().in_flight == 0);
    CHECK(cluster.finished_batches == batches_of(options));
    for (const auto& [key, times] : applied_times(cluster)) CHECK(times == 1);
}

TEST_CASE("stop: a drained run settles every step and gives its batches back") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        ClusterOptions options = small_cluster(seed);
        options.job.data_epochs = 50;
        if (seed % 2 == 0) {
            options.job.push_pull = false;
            options.job.pull_ahead = 1;
        }
        Cluster cluster(options);
        cluster.world().at(Time{Nanos(30'000'000 + seed * 1'234'567)}, [&] {
            Message message;
            message.body = Stop{"interrupted", true};
            cluster.world().post(kCoordinator, Received{std::move(message)});
        });
        REQUIRE(cluster.run());
        CHECK(cluster.books().in_flight == 0);
        CHECK(cluster.books().lost == 0);
        CHECK(cluster.books().cancelled > 0);
        CHECK(cluster.finished_batches < batches_of(options));
    }
}

TEST_CASE("bounded reject: nothing past the bound is applied, nothing within it rejected") {
    ClusterOptions options = small_cluster();
    options.job.workers = 6;
    options.job.policy.name = "bounded_reject";
    options.job.policy.parameters = {{"tau_max", "4"}};
    options.job.on_rejection = OnRejection::recompute;
    Cluster cluster(options);
    REQUIRE(cluster.run());
    std::uint64_t rejected = 0;
    for (std::uint32_t i = 0; i < 2; ++i) {
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* push = std::get_if<VerdictRecord>(&entry.record);
            if (push == nullptr) continue;
            for (const auto& row : push->rows) {
                CHECK((row.verdict == Verdict::applied) == (row.staleness <= 4));
                rejected += row.verdict == Verdict::rejected ? 1 : 0;
            }
        }
    }
    CHECK(rejected > 0);
    CHECK(cluster.books().rejected == rejected);
    CHECK(cluster.books().in_flight == 0);
    CHECK(cluster.finished_batches == batches_of(options));
}

TEST_CASE("one worker is plain SGD, bit for bit, under every policy that is to be that") {
    for (const char* policy : {"async", "bounded_reject", "bsp", "ssp", "dssp", "inverse",
                               "polynomial", "hinge", "dc_asgd", "gap_aware", "ringmaster"}) {
        INFO(policy);
        ClusterOptions options = small_cluster();
        options.job.workers = 1;
        options.job.data_epochs = 1;
        options.job.policy.name = policy;
        options.job.aggregator.name = "sum";
        Cluster cluster(options);
        REQUIRE(cluster.run());

        QuadraticEngine engine(options.model);
        EngineComputer computer(std::make_unique<QuadraticEngine>(options.model),
                                cluster.shared_plan(), options.job.seed);
        auto rule = make_rule(options.job.rule);
        REQUIRE(rule.has_value());
        std::vector<float> weights;
        for (const Block& block : cluster.plan().blocks) {
            const auto values = engine.tensor(block.tensor).subspan(block.offset, block.elements);
            weights.insert(weights.end(), values.begin(), values.end());
        }
        const std::atomic<bool> never{false};
        for (std::uint32_t batch = 0; batch < batches_of(options); ++batch) {
            GradientWork work;
            std::size_t at = 0;
            for (const Block& block : cluster.plan().blocks) {
                const std::span<const float> values(weights.data() + at, block.elements);
                work.weights.push_back(
                    {block.id, Epoch{1}, Version{0}, copy_of(std::as_bytes(values)), std::nullopt});
                at += block.elements;
            }
            work.batch = {0, batch, 1};
            work.batch_samples = options.job.batch_samples;
            work.random_key = random_key(options.job.seed, Purpose::task_stream, {0, batch});
            work.tasks.bits = 3;
            auto outcome = computer.run(work, never, {});
            REQUIRE(outcome.has_value());
            CombineWork combine;
            combine.gradients = std::get<GradientOutcome>(*outcome).gradients;
            combine.weights = {1.0, 1.0};
            combine.layout.emplace_back();
            for (const Block& block : cluster.plan().blocks) combine.layout[0].push_back(block.id);
            const auto combined =
                computer.run(combine, never, [&](std::uint32_t, const Payload& payload) {
                    AlignedBuffer in(weights.size() * sizeof(float));
                    std::memcpy(in.data(), weights.data(), in.size());
                    RuleArrays arrays;
                    arrays.weights_in = in.floats();
                    arrays.weights_out = in.floats();
                    arrays.gradient = payload.bytes.data();
                    RuleStep step;
                    step.learning_rate = options.job.rule.learning_rate;
                    (*rule)->apply(step, arrays);
                    std::memcpy(weights.data(), in.data(), in.size());
                });
            REQUIRE(combined.has_value());
        }
        const std::vector<float> trained = cluster.weights();
        REQUIRE(trained.size() == weights.size());
        CHECK(std::memcmp(trained.data(), weights.data(), weights.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("weights do not depend on the number of shards when one worker trains") {
    std::vector<std::vector<float>> results;
    for (const std::uint32_t shards : {1U, 2U, 4U}) {
        ClusterOptions options = small_cluster();
        options.job.workers = 1;
        options.job.servers = shards;
        options.job.block_bytes = 4096;
        options.model.trunk_elements = 5000;
        options.job.aggregator.name = "pcgrad";
        options.job.rule.name = "adam";
        options.job.clip_norm = 0.5;
        Cluster cluster(options);
        REQUIRE(cluster.run());
        results.push_back(cluster.weights());
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
}

TEST_CASE("small blocks travel together: 200 of 4 KiB are one push and no pull a step") {
    ClusterOptions options = small_cluster();
    options.job.workers = 1;
    options.job.servers = 1;
    options.job.block_bytes = 4096;
    options.model.trunk_elements = 200 * 1024;
    options.model.head_elements = 0;
    std::uint64_t pushes = 0;
    std::uint64_t pulls = 0;
    options.world.wire = [&](const Message& message, bool, std::uint64_t) {
        if (const auto* push = std::get_if<Push>(&message.body)) {
            ++pushes;
            REQUIRE(push->parts == 1);
            REQUIRE(push->blocks.size() == 200);
        }
        if (std::holds_alternative<PullRequest>(message.body)) ++pulls;
        return std::optional(message);
    };
    Cluster cluster(options);
    REQUIRE(cluster.run());
    CHECK(pushes == batches_of(options));
    CHECK(pulls <= 2);  // the first weights, and a step after the last batch that is not computed
}

TEST_CASE("a rejected batch is computed again as often as the job says, then dropped") {
    ClusterOptions options = small_cluster();
    options.job.workers = 6;
    options.job.policy = {"bounded_reject", {{"tau_max", "0"}}};
    options.job.on_rejection = OnRejection::recompute;
    options.job.most_recomputes = 2;
    Cluster cluster(options);
    REQUIRE(cluster.run());
    CHECK(cluster.finished_batches == batches_of(options));
    using Batch = std::pair<std::uint32_t, std::uint32_t>;
    std::map<Batch, std::set<std::pair<std::uint32_t, std::uint64_t>>> computed;
    for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{0}))) {
        const auto* record = std::get_if<VerdictRecord>(&entry.record);
        if (record == nullptr) continue;
        computed[{record->batch.data_epoch, record->batch.first}].insert(
            {record->worker.value, record->step.value});
    }
    std::size_t most = 0;
    for (const auto& [batch, steps] : computed) most = std::max(most, steps.size());
    CHECK(most == 3);
    CHECK(cluster.books().rejected > 0);
}

TEST_CASE("large blocks: replies in flight are never torn by later updates") {
    ClusterOptions options = small_cluster();
    options.job.workers = 4;
    options.job.servers = 1;
    options.model.tasks = 1;
    options.model.head_elements = 0;
    options.model.trunk_elements = 40'000;  // 160 kB: travels by reference
    options.model.equal_elements = true;
    options.job.block_bytes = 128 << 10;
    options.world.network.jitter = Nanos(5'000'000);
    Cluster cluster(options);
    // Checksums are made at send: bytes changed before delivery would be refused by the worker.
    REQUIRE(cluster.run());
    for (const auto& [node, last] : cluster.coordinator().last) {
        INFO(to_string(node) << ": " << last.error);
        CHECK_FALSE(last.failed);
        // A torn reply has another checksum than it left with; the worker drops and counts it.
        for (const NamedValue& value : last.last.values) {
            if (value.name == "altered") CHECK(value.value == 0);
        }
    }
    CHECK(cluster.books().applied == batches_of(options) * cluster.plan().blocks.size());
    const std::vector<float> weights = cluster.weights();
    CHECK(std::abs(weights.front()) < 0.1F);
}

TEST_CASE("a frozen tensor is pulled once, never computed, pushed or versioned") {
    ClusterOptions options = small_cluster();
    options.job.frozen = {"head1.*"};
    Cluster cluster(options);
    REQUIRE(cluster.run());
    for (const Block& block : cluster.plan().blocks) {
        const bool frozen = block.frozen;
        CHECK(cluster.versions[block.id].value == (frozen ? 0 : batches_of(options)));
    }
    CHECK(cluster.books().applied == batches_of(options) * (cluster.plan().blocks.size() - 1));
}

}  // namespace detente::test
