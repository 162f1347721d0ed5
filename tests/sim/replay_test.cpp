// The ledger is enough to replay a run: from nothing but the job, the model and the shards' entries
// the weights come out bit for bit, and a gradient that differs is found by its hash.
#include <cmath>
#include <cstring>
#include <tuple>

#include "common/rules/schedule.h"
#include "tests/sim/cluster.h"

namespace detente::test {
namespace {

ClusterOptions run_of_everything() {
    ClusterOptions options;
    options.job.servers = 2;
    options.job.workers = 3;
    options.job.batch_samples = 16;
    options.job.data_epochs = 2;
    options.job.lease_batches = 4;
    options.job.clip_norm = 0.5;
    options.job.aggregator.name = "pcgrad";
    options.job.rule.name = "adam";
    options.job.rule.learning_rate = 0.01;
    options.job.schedule.name = "cosine";
    options.job.schedule.warmup_samples = 64;
    options.job.schedule.total_samples = 100'000;
    options.job.policy.name = "inverse";
    options.job.policy.parameters = {};
    return options;
}

using StepKey = std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>;
template <class Record>
StepKey key_of(const Record& record) {
    return {record.worker.value, record.incarnation.value, record.step.value};
}

// A block as the replay has it, and every version it ever had.
struct ReplayedBlock {
    std::vector<SharedBuffer> versions;
    std::vector<SharedBuffer> slots;
    std::uint64_t samples = 0;
};

class Replay {
  public:
    Replay(const ClusterOptions& options, const Plan& plan)
        : job_(options.job),
          plan_(std::make_shared<Plan>(plan)),
          computer_(std::make_unique<QuadraticEngine>(options.model), plan_, job_.seed, true),
          aggregator_(*make_aggregator(job_.aggregator)),
          rule_(*make_rule(job_.rule)),
          blocks_(plan.blocks.size()) {
        const auto first = [&](std::uint32_t block, const Payload& values) {
            auto buffer = std::make_shared<AlignedBuffer>(values.size());
            std::memcpy(buffer->data(), values.bytes.data(), values.size());
            blocks_[block].versions.push_back(buffer);
            for (int slot = 0; slot < rule_->slots(); ++slot) {
                auto zeros = std::make_shared<AlignedBuffer>(values.size());
                std::memset(zeros->data(), 0, zeros->size());
                blocks_[block].slots.push_back(std::move(zeros));
            }
        };
        REQUIRE(computer_.run(InitialWork{}, never_, first).has_value());
    }

    // A pull may have been answered more than once; the push says which answer it was computed at.
    void know(const VerdictRecord& push) {
        for (const VerdictRecord::Row& row : push.rows) {
            base_[key_of(push)][row.block] = row.base;
        }
    }
    void take(const PullRecord& pull) {
        close_averages();
        const auto& base = base_[key_of(pull)];
        for (std::size_t i = 0; i < pull.blocks.size(); ++i) {
            const auto known = base.find(pull.blocks[i]);
            pulled_[key_of(pull)][pull.blocks[i]] =
                known == base.end() ? pull.versions[i] : known->second;
        }
    }
    void take(const VerdictRecord& push) {
        auto [gradient, fresh] = gradients_.try_emplace(key_of(push));
        if (fresh) compute(push, gradient->second);
        if (hash_of_[key_of(push)] != push.gradient_hash) ++mismatches;
        for (const VerdictRecord::Row& row : push.rows) {
            if (row.verdict == Verdict::applied) fold(row, push, gradient->second);
        }
    }
    // What is still open when the last entry is taken.
    void close_averages() {
        for (auto& [block, average] : std::exchange(averages_, {})) apply(average);
    }
    const SharedBuffer& weights(BlockId block) const {
        return blocks_[block.value].versions.back();
    }
    std::uint64_t mismatches = 0;
    std::uint64_t applied = 0;
    std::uint64_t other_rates = 0;  // than job, samples and scale give

  private:
    using Gradient = std::map<BlockId, Payload>;

    void compute(const VerdictRecord& push, Gradient& gradient) {
        GradientWork work;
        for (const auto& [block, version] : pulled_.at(key_of(push))) {
            const SharedBuffer& values = blocks_[block.value].versions.at(version.value);
            work.weights.push_back({block, push.epoch, version, payload_of(values), {}});
        }
        work.batch = push.batch;
        work.batch_samples = job_.batch_samples;
        work.random_key =
            random_key(job_.seed, Purpose::task_stream, {push.batch.data_epoch, push.batch.first});
        auto result = computer_.run(work, never_, {});
        REQUIRE(result.has_value());
        auto& outcome = std::get<GradientOutcome>(*result);
        hash_of_[key_of(push)] = outcome.gradient_hash;
        CHECK(outcome.samples == push.samples);
        AggregatorInput input;
        input.gramian = &outcome.gramian;
        input.losses = outcome.losses;
        input.random_key =
            random_key(job_.seed, Purpose::aggregator, {push.worker.value, push.step.value});
        const auto weights = aggregator_->weights(input, state_);
        REQUIRE(weights.has_value());
        CombineWork combine{
            outcome.gradients, weights->weights, clip(outcome, weights->weights), {}};
        for (const Block& block : plan_->blocks) combine.layout.push_back({block.id});
        const auto keep = [&](std::uint32_t i, Payload part) { gradient[BlockId{i}] = part; };
        REQUIRE(computer_.run(combine, never_, keep).has_value());
    }
    double clip(const GradientOutcome& outcome, const std::vector<double>& weights) const {
        double norm_sq = 0;
        for (std::size_t i = 0; i < weights.size(); ++i) {
            for (std::size_t j = 0; j < weights.size(); ++j) {
                norm_sq += weights[i] * weights[j] * outcome.gramian.at(i, j);
            }
        }
        for (const double own : outcome.exclusive_norms_sq) norm_sq += own;
        const double norm = std::sqrt(norm_sq);
        return norm > job_.clip_norm ? job_.clip_norm / norm : 1;
    }
    // The gradients of one update of one block, in the order of their records.
    struct Average {
        VerdictRecord::Row row;
        Sequence decision;
        double denominator = 1;
        std::uint32_t samples = 0;
        std::uint64_t pushes = 0;
        bool as_it_is = true;
        Payload only;
        std::vector<double> sum;
    };
    void fold(const VerdictRecord::Row& row, const VerdictRecord& push, const Gradient& gradient) {
        const auto open = averages_.find(row.block);
        const bool another = open != averages_.end() && (open->second.row.version != row.version ||
                                                         open->second.decision != push.decision);
        if (another) {
            apply(open->second);
            averages_.erase(open);
        }
        const auto [at, fresh] = averages_.try_emplace(row.block);
        Average& average = at->second;
        if (fresh) {
            average.row = row;
            average.decision = push.decision;
            average.denominator = push.denominator;
            average.only = gradient.at(row.block);
            average.sum.assign(average.only.size() / sizeof(float), 0.0);
        }
        CHECK(average.denominator == push.denominator);
        average.as_it_is = fresh && push.gradient_weight == 1 && push.denominator == 1;
        average.samples += push.samples;
        ++average.pushes;
        const auto* values = reinterpret_cast<const float*>(gradient.at(row.block).bytes.data());
        for (std::size_t i = 0; i < average.sum.size(); ++i) {
            average.sum[i] += static_cast<double>(push.gradient_weight) * values[i];
        }
    }
    void apply(const Average& average) {
        const VerdictRecord::Row& row = average.row;
        AlignedBuffer folded(average.only.size());
        for (std::size_t i = 0; i < average.sum.size(); ++i) {
            folded.floats()[i] = static_cast<float>(average.sum[i] / average.denominator);
        }
        ReplayedBlock& block = blocks_[row.block.value];
        const double rate = job_.rule.learning_rate * schedule_factor(job_.schedule, block.samples);
        if (row.scheduled_rate != rate) ++other_rates;
        auto next = std::make_shared<AlignedBuffer>(block.versions.back()->size());
        RuleArrays arrays;
        arrays.weights_in = block.versions.back()->floats();
        arrays.weights_out = next->floats();
        arrays.gradient = average.as_it_is ? average.only.bytes.data() : folded.data();
        arrays.slot0 = block.slots[0]->floats();
        arrays.slot1 = block.slots[1]->floats();
        rule_->apply({row.learning_rate(), block.versions.size(), 0}, arrays);
        block.versions.push_back(std::move(next));
        block.samples += average.samples;
        applied += average.pushes;
        CHECK(row.version.value + 1 == block.versions.size());
    }

    Job job_;
    std::shared_ptr<const Plan> plan_;
    EngineComputer computer_;
    std::unique_ptr<const Aggregator> aggregator_;
    AggregatorState state_;
    std::unique_ptr<const Rule> rule_;
    std::vector<ReplayedBlock> blocks_;
    std::map<StepKey, std::map<BlockId, Version>> base_;
    std::map<StepKey, std::map<BlockId, Version>> pulled_;
    std::map<StepKey, Gradient> gradients_;
    std::map<StepKey, std::uint64_t> hash_of_;
    std::map<BlockId, Average> averages_;
    std::atomic<bool> never_{false};
};

// Both shards' entries on the run's one clock.
std::vector<LedgerEntry> entries_of(Cluster& cluster) {
    std::vector<LedgerEntry> all;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        const auto& ledger = cluster.world().ledger(node_of(ShardId{i}));
        all.insert(all.end(), ledger.begin(), ledger.end());
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const auto& a, const auto& b) { return a.at < b.at; });
    return all;
}

void replay(const std::vector<LedgerEntry>& entries, Replay& into) {
    for (const LedgerEntry& entry : entries) {
        if (const auto* push = std::get_if<VerdictRecord>(&entry.record)) into.know(*push);
    }
    for (const LedgerEntry& entry : entries) {
        if (const auto* pull = std::get_if<PullRecord>(&entry.record)) into.take(*pull);
        if (const auto* push = std::get_if<VerdictRecord>(&entry.record)) into.take(*push);
    }
    into.close_averages();
}

void require_replays(const ClusterOptions& options) {
    Cluster cluster(options);
    REQUIRE(cluster.run());
    Replay again(options, cluster.plan());
    replay(entries_of(cluster), again);
    CHECK(again.applied == cluster.books().applied);
    CHECK(again.applied > 0);
    CHECK(again.mismatches == 0);
    CHECK(again.other_rates == 0);
    for (const auto& [block, values] : cluster.weights_by_block()) {
        const SharedBuffer& replayed = again.weights(block);
        REQUIRE(replayed->size() == values.size() * sizeof(float));
        CHECK(std::memcmp(replayed->data(), values.data(), replayed->size()) == 0);
    }
}

}  // namespace

TEST_CASE("replay: the ledger alone gives the run's weights again, bit for bit") {
    require_replays(run_of_everything());
}

TEST_CASE("replay: so it does under step scope: averages, weights in them, held workers, losses") {
    for (const char* policy :
         {"bsp", "fedbuff", "ssp", "softsync", "backup_workers", "ringmaster", "kardam"}) {
        for (std::uint64_t seed = 1; seed <= 3; ++seed) {
            INFO(policy << " seed " << seed);
            ClusterOptions options = run_of_everything();
            options.job.policy = {policy, {}};
            if (options.job.policy.name == "fedbuff") options.job.policy.parameters = {{"k", "3"}};
            options.job.workers = 4;
            options.job.seed = options.world.seed = seed;
            options.world.network.drop = 0.05;
            options.world.network.duplicate = 0.05;
            options.world.network.jitter = Nanos(1'000'000);
            require_replays(options);
        }
    }
}

TEST_CASE("replay: a gradient that comes out otherwise is found by its hash") {
    ClusterOptions options = run_of_everything();
    options.job.data_epochs = 1;
    Cluster cluster(options);
    REQUIRE(cluster.run());
    options.model.noise *= 1.001;
    Replay again(options, cluster.plan());
    replay(entries_of(cluster), again);
    CHECK(again.mismatches > 0);
}

TEST_CASE("replay: with ledger.gradient_hashes off no hash is made, and the weights are the same") {
    ClusterOptions options = run_of_everything();
    Cluster with(options);
    REQUIRE(with.run());
    options.job.gradient_hashes = false;
    Cluster without(options);
    REQUIRE(without.run());
    for (const LedgerEntry& entry : entries_of(without)) {
        const auto* push = std::get_if<VerdictRecord>(&entry.record);
        if (push != nullptr) REQUIRE(push->gradient_hash == 0);
    }
    CHECK(with.weights() == without.weights());
}

}  // namespace detente::test
