// What tests of step scope on whole simulated clusters share: every policy that decides steps, and
// what a finished cluster looks like.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "common/staleness/policy.h"
#include "tests/sim/cluster.h"

namespace detente::test {

inline PolicyConfig policy_of(const std::string& name) {
    PolicyConfig policy;
    policy.name = name;
    if (name == "fedbuff") policy.parameters = {{"k", "3"}};
    if (name == "ringmaster") policy.parameters = {{"r", "3"}};
    if (name == "ssp" || name == "dssp") {
        policy.parameters = {{name == "ssp" ? "s" : "s_l", "1"}};
    }
    return policy;
}

// All of the catalog whose scope is the step: a new one is tested from its line there.
inline const std::vector<std::string>& step_policies() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> found;
        for (const std::string& name : policy_names()) {
            const auto policy = make_policy(policy_of(name));
            REQUIRE(policy.has_value());
            if ((*policy)->scope() == Scope::step) found.push_back(name);
        }
        return found;
    }();
    return names;
}

inline ClusterOptions cluster_of(const std::string& policy, std::uint64_t seed) {
    ClusterOptions options;
    options.job.servers = 2;
    options.job.workers = 4;
    options.job.batch_samples = 16;
    options.job.data_epochs = 2;
    options.job.lease_batches = 2;
    options.job.rule.name = "sgd";
    options.job.rule.learning_rate = 0.05;
    options.job.policy = policy_of(policy);
    options.job.on_rejection = OnRejection::recompute;
    options.job.seed = seed;
    options.world.seed = seed;
    return options;
}

using Applied =
    std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>;  // worker, incarnation, step

// What each shard applied, in its order; a step's parts count once.
inline std::vector<std::vector<Applied>> applied_by_shard(Cluster& cluster) {
    std::vector<std::vector<Applied>> shards;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        std::vector<Applied>& order = shards.emplace_back();
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* record = std::get_if<VerdictRecord>(&entry.record);
            if (record == nullptr || record->rows.front().verdict != Verdict::applied) continue;
            const Applied one{record->worker.value, record->incarnation.value, record->step.value};
            if (order.empty() || order.back() != one) order.push_back(one);
        }
    }
    return shards;
}

inline void require_same_on_all_shards(Cluster& cluster) {
    auto shards = applied_by_shard(cluster);
    for (std::size_t i = shards.size(); i-- > 0;) {  // nothing is ever pushed to a shard of none
        if (cluster.plan().by_shard[i].empty()) {
            REQUIRE(shards[i].empty());
            shards.erase(shards.begin() + static_cast<std::ptrdiff_t>(i));
        }
    }
    for (const auto& order : shards) REQUIRE(order == shards.front());
    auto once = shards.front();
    std::sort(once.begin(), once.end());
    REQUIRE(std::adjacent_find(once.begin(), once.end()) == once.end());
    const Version version = cluster.versions.begin()->second;
    for (const auto& [block, other] : cluster.versions) REQUIRE(other == version);
}

// Every batch finished, nothing left in flight, all shards the same.
inline void require_finished(Cluster& cluster, const ClusterOptions& options) {
    REQUIRE(cluster.run());
    REQUIRE(cluster.books().in_flight == 0);
    REQUIRE(cluster.finished_batches == batches_of(options));
    require_same_on_all_shards(cluster);
}

inline void require_no_failure(Cluster& cluster) {
    for (const auto& [node, last] : cluster.coordinator().last) {
        INFO(to_string(node) << ": " << last.error);
        REQUIRE_FALSE(last.failed);
    }
}

}  // namespace detente::test
