#include "worker/pull_spread.h"

#include <algorithm>
#include <optional>

namespace detente {

void PullSpread::note(const std::vector<WeightBlock>& weights, const Plan& plan) {
    if (!told_) return;
    std::optional<Version> lowest;
    Version highest;
    for (const WeightBlock& block : weights) {
        if (!plan.block(block.block).trainable()) continue;
        lowest = std::min(lowest.value_or(block.version), block.version);
        highest = std::max(highest, block.version);
    }
    const std::uint64_t apart = lowest ? highest.value - lowest->value : 0;
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
