// Kardam on whole simulated clusters: what a Byzantine worker cannot do, and what it costs.
#include <cmath>

#include "tests/sim/steps_cluster.h"

namespace detente::test {
namespace {

struct OfWorker {
    std::uint64_t applied = 0;
    std::uint64_t rejected = 0;
};
std::map<std::uint32_t, OfWorker> verdicts_by_worker(Cluster& cluster) {
    std::map<std::uint32_t, OfWorker> counts;
    for (const LedgerEntry& entry : cluster.world().ledger(node_of(kLeadShard))) {
        const auto* record = std::get_if<VerdictRecord>(&entry.record);
        if (record == nullptr) continue;
        OfWorker& worker = counts[record->worker.value];
        if (record->rows.front().verdict == Verdict::applied) ++worker.applied;
        if (record->rows.front().verdict == Verdict::rejected) ++worker.rejected;
    }
    return counts;
}

// Distance of the trunk from the tasks' common optimum.
double distance(const Cluster& cluster, const ClusterOptions& options) {
    double sum = 0;
    const std::vector<float>& trunk = cluster.weights_by_block().begin()->second;
    for (std::size_t i = 0; i < trunk.size(); ++i) {
        double target = 0;
        for (std::size_t task = 0; task < options.model.tasks; ++task) {
            target += static_cast<double>((task + 1) * (i % 5)) * 0.25 - 0.5;
        }
        target /= static_cast<double>(options.model.tasks);
        sum += std::pow(trunk[i] - target, 2);
    }
    return std::sqrt(sum / static_cast<double>(trunk.size()));
}

struct Attack {
    float factor = 1;
    float offset = 0;
};

// Seven workers, of which the last does not send what it computed.
ClusterOptions with_byzantine(const std::string& policy, std::uint64_t seed, Attack attack) {
    ClusterOptions options = cluster_of(policy, seed);
    options.job.workers = 7;
    options.job.data_epochs = 20;
    options.job.admission = Admission::step;
    options.job.on_rejection = OnRejection::drop;
    options.job.rule.learning_rate = 0.05;
    options.model.samples = 1280;
    options.model_of_worker[6] = options.model;
    options.model_of_worker[6].gradient_factor = attack.factor;
    options.model_of_worker[6].gradient_offset = attack.offset;
    return options;
}

}  // namespace

TEST_CASE("kardam: a worker that sends too much, the opposite, or always the same, is kept out") {
    for (const Attack attack : {Attack{100, 0}, Attack{-100, 0}, Attack{0, 30}}) {
        for (std::uint64_t seed = 1; seed <= 5; ++seed) {
            INFO("factor " << attack.factor << " offset " << attack.offset << " seed " << seed);
            const ClusterOptions options = with_byzantine("kardam", seed, attack);
            Cluster cluster(options);
            require_finished(cluster, options);
            require_no_failure(cluster);
            const auto counts = verdicts_by_worker(cluster);
            const OfWorker byzantine = counts.at(6);
            CHECK(byzantine.rejected > 20);
            CHECK(byzantine.applied <= 2);  // until every worker has a coefficient
            OfWorker honest;
            for (std::uint32_t worker = 0; worker < 6; ++worker) {
                honest.applied += counts.at(worker).applied;
                honest.rejected += counts.at(worker).rejected;
            }
            CHECK(honest.applied > 150);
            CHECK(distance(cluster, options) < 0.1);
        }
    }
}

TEST_CASE("kardam: what it keeps out spoils a run without it") {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        const ClusterOptions options = with_byzantine("async", seed, {0, 30});
        Cluster cluster(options);
        require_finished(cluster, options);
        CHECK(distance(cluster, options) > 1);
    }
}

TEST_CASE("kardam: more blocks on a shard than a notice can tell of are refused by the plan") {
    ModelDescription model;
    model.tasks = {"a"};
    Job job;
    job.policy.name = "kardam";
    job.policy.parameters.clear();
    job.block_bytes = 4096;
    const auto planned = [&](std::int64_t blocks) {
        model.tensors = {{"w", {blocks, 1024}, TaskSet{1}}};
        return make_plan(model, job);
    };
    CHECK(planned(65'536).has_value());
    const auto refused = planned(65'537);
    REQUIRE(refused.has_error());
    CHECK(refused.error().code == ErrorCode::bad_job);
    CHECK_THAT(refused.error().text, Catch::Contains("shard 0 has 65537 blocks"));
    job.servers = 2;
    CHECK(planned(65'537).has_value());
    job.servers = 1;
    job.policy.name = "ssp";
    CHECK(planned(65'537).has_value());
}

}  // namespace detente::test
