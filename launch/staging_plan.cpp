#include "launch/staging_plan.h"

#include <fmt/format.h>

#include "common/staleness/policy.h"

namespace detente {

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
                            shard, steps, steps * plan.shard_bytes[shard]);
    }
    return text;
}

Result<void> check_staging(const Plan& plan, const Job& job, const std::vector<ShardId>& shards,
                           std::uint64_t memory_bytes, const std::string& host) {
    const std::uint64_t steps = most_staged_steps(job);
    if (steps == 0) return {};
    double weights = 0;  // as a number that cannot overflow
    for (const ShardId shard : shards) {
        weights += static_cast<double>(plan.shard_bytes[shard.value]);
    }
    const double staged = static_cast<double>(steps) * weights;
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

}  // namespace detente
