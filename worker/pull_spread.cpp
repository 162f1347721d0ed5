#include "worker/pull_spread.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/staleness/policy.h"

namespace detente {
namespace {

// Only a bounded policy of block scope rejects.
bool may_reject(const PolicyConfig& config) {
    const auto policy = make_policy(config);
    return !policy || (*policy)->bound();
}

}  // namespace

PullSpread::PullSpread(const Job& job) : steps_(decides_steps(job)) {
    const bool rejects = may_reject(job.policy) ||
                         std::any_of(job.policy_for.begin(), job.policy_for.end(),
                                     [](const PolicyFor& one) { return may_reject(one.policy); });
    told_ = steps_ || !rejects;
}

void PullSpread::note(const std::vector<WeightBlock>& weights, const Plan& plan) {
    if (!told_) return;
    // By owners, and whether nodes update them in step: the lowest and the highest version.
    std::map<std::pair<std::uint64_t, bool>, std::pair<Version, Version>> found;
    for (const WeightBlock& block : weights) {
        const Block& planned = plan.block(block.block);
        if (!planned.trainable()) continue;
        if (!steps_ && block.epoch > Epoch{1}) return;  // restored
        const auto key = steps_ ? std::pair(std::uint64_t{0}, false)
                                : std::pair(planned.owners.bits, planned.in_step);
        auto& [lowest, highest] =
            found.try_emplace(key, block.version, block.version).first->second;
        lowest = std::min(lowest, block.version);
        highest = std::max(highest, block.version);
    }
    std::uint64_t apart = 0;
    for (const auto& [key, versions] : found) {
        apart = std::max(apart, versions.second.value - versions.first.value);
    }
    ++pulls_;
    torn_ += apart > 0 ? 1 : 0;
    sum_ += apart;
    largest_ = std::max(largest_, apart);
}

void PullSpread::report(Status& status) const {
    if (pulls_ == 0) return;
    const auto add = [&status](const char* name, std::uint64_t value) {
        status.values.push_back({name, static_cast<double>(value)});
    };
    add("pull.told_steps", pulls_);
    add("pull.torn_steps", torn_);
    add("pull.torn_sum", sum_);
    add("pull.torn_max", largest_);
}

}  // namespace detente
