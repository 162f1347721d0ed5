// Live changes of policy in tests of whole simulated clusters: asking for them, and what ledgers
// tell of them.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/steps_cluster.h"

namespace detente::test {

inline PolicyChange to(const std::string& policy, std::uint64_t request = 1) {
    const PolicyConfig config = policy_of(policy);
    return {request, config.name, config.parameters, "tester@here"};
}

// Control records of each shard that tell of a change.
inline std::vector<std::vector<std::string>> changes_in_ledgers(Cluster& cluster) {
    std::vector<std::vector<std::string>> shards;
    for (std::uint32_t i = 0; i < cluster.job().shards(); ++i) {
        std::vector<std::string>& texts = shards.emplace_back();
        for (const LedgerEntry& entry : cluster.world().ledger(node_of(ShardId{i}))) {
            const auto* control = std::get_if<ControlRecord>(&entry.record);
            if (control != nullptr && control->what.starts_with("staleness policy")) {
                texts.push_back(control->what);
            }
        }
    }
    return shards;
}

inline void ask_at(Cluster& cluster, Nanos when, const PolicyChange& change) {
    cluster.after_start(when, [&cluster, change] {
        Message message;
        message.envelope.from = kCoordinator;
        message.body = change;
        cluster.world().post(node_of(kLeadShard), Received{std::move(message)});
    });
}

}  // namespace detente::test
