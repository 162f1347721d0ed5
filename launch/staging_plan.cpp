#include "launch/staging_plan.h"

#include <fmt/format.h>

#include <map>

#include "common/staleness/policy.h"

namespace detente {
namespace {

// Of a step's gradients at this shard: frozen blocks have none.
std::uint64_t step_bytes(const Plan& plan, std::size_t shard) {
    std::uint64_t bytes = 0;
    for (const BlockId id : plan.by_shard[shard]) {
        if (plan.block(id).trainable()) bytes += plan.block(id).bytes();
    }
    return bytes;
}

}  // namespace

std::uint64_t most_staged_steps(const Job& job) {
    const auto policy = make_policy(job.policy);
    if (policy.has_error() || !decides_steps(job)) return 0;
    const std::uint64_t workers = job.most_workers();
    return workers * (1 + job.pull_ahead) + (*policy)->most_kept(workers);
}

std::string describe_staging(const Plan& plan, const Job& job) {
    const std::uint64_t steps = most_staged_steps(job);
    std::string text;
    for (std::size_t shard = 0; steps > 0 && shard < plan.shard_bytes.size(); ++shard) {
        text += fmt::format("shard {} keeps at most {} steps until they are decided: {} bytes\n",
                            shard, steps, steps * step_bytes(plan, shard));
    }
    return text;
}

Result<void> check_staging(const Plan& plan, const Job& job, const std::vector<ShardId>& shards,
                           std::uint64_t memory_bytes, const std::string& host) {
    const std::uint64_t steps = most_staged_steps(job);
    if (steps == 0) return {};
    double weights = 0;  // as numbers that cannot overflow
    double staged = 0;
    for (const ShardId shard : shards) {
        weights += static_cast<double>(plan.shard_bytes[shard.value]);
        staged += static_cast<double>(steps) * static_cast<double>(step_bytes(plan, shard.value));
    }
    if (weights + staged <= static_cast<double>(memory_bytes)) return {};
    constexpr double kGiB = 1U << 30U;
    return fail(ErrorCode::bad_job,
                fmt::format("staleness: {} steps of {} workers may wait to be decided at once: "
                            "expected them to fit into the {:.1f} GiB of {}, found {:.1f} GiB of "
                            "gradients beside {:.1f} GiB of weights on {} shards there; spread the "
                            "shards over more hosts, take fewer workers, or a policy that decides "
                            "per block",
                            steps, job.most_workers(), static_cast<double>(memory_bytes) / kGiB,
                            host, staged / kGiB, weights / kGiB, shards.size()));
}

Result<void> check_staging(const Plan& plan, const Job& job, const ClusterView& cluster) {
    struct Host {
        std::vector<ShardId> shards;
        std::uint64_t memory_bytes = 0;
    };
    std::map<std::string, Host> hosts;
    for (const ProcessView& process : cluster.processes) {
        if (process.node.role != Role::shard || process.memory_bytes == 0) continue;
        Host& host = hosts[process.endpoint.host];
        host.shards.push_back(ShardId{process.node.index});
        host.memory_bytes = process.memory_bytes;
    }
    for (const auto& [name, host] : hosts) {
        auto fits = check_staging(plan, job, host.shards, host.memory_bytes, name);
        if (fits.has_error()) return fits;
    }
    return {};
}

}  // namespace detente
