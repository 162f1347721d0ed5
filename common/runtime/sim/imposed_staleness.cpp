#include "common/runtime/sim/imposed_staleness.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "common/random.h"

namespace detente::sim {

std::vector<std::string> imposed_staleness_names() {
    return {"none", "constant", "uniform", "geometric", "poisson"};
}

std::uint64_t ImposedStaleness::draw(NodeId worker) {
    const double mean = config_.mean;
    Random random(random_key(seed_, Purpose::imposed_staleness, {worker.index, drawn_[worker]++}));
    double drawn = mean;
    if (config_.distribution == "uniform") {
        drawn = std::floor(random.uniform() * (2 * mean + 1));
    } else if (config_.distribution == "geometric") {
        // P(k) = p(1−p)^k with mean (1−p)/p.
        drawn = mean > 0 ? std::floor(random.exponential() / std::log1p(1 / mean)) : 0;
    } else if (config_.distribution == "poisson") {
        // Arrivals of rate 1 within `mean`.
        double at = random.exponential();
        for (drawn = 0; at < mean && drawn < config_.most; ++drawn) at += random.exponential();
    }
    return static_cast<std::uint64_t>(std::min<double>(std::round(drawn), config_.most));
}

void ImposedStaleness::is_now(BlockId block, Epoch epoch, Version version,
                              std::span<const std::byte> weights) {
    std::deque<Old>& history = history_[block];
    const bool known =
        !history.empty() && history.back().epoch == epoch && history.back().version == version;
    if (known) return;
    history.push_back({epoch, version, copy_of(weights)});
    if (history.size() > std::size_t{config_.most} + 1) history.pop_front();
}

const ImposedStaleness::Old* ImposedStaleness::wanted(BlockId block,
                                                      std::uint64_t staleness) const {
    const auto found = history_.find(block);
    if (found == history_.end()) return nullptr;
    const std::deque<Old>& history = found->second;
    const Old& latest = history.back();
    std::uint64_t at_verdict = latest.version.value;
    const auto others = on_their_way_.find(block);
    if (one_by_one_ && others != on_their_way_.end()) at_verdict += others->second.size();
    const std::uint64_t version = at_verdict > staleness ? at_verdict - staleness : 0;
    const auto old = std::find_if(history.begin(), history.end(), [&](const Old& one) {
        return one.epoch == latest.epoch && one.version.value >= version;
    });
    return old == history.end() ? &latest : &*old;
}

void ImposedStaleness::choose(NodeId worker, GradientWork& work) {
    const std::uint64_t staleness = draw(worker);
    for (auto& [block, others] : on_their_way_) others.erase(worker);
    auto& steps = computed_at_[worker];
    std::map<BlockId, Version>& at = steps[work.step];
    for (WeightBlock& block : work.weights) {
        const Block& plan = plan_->block(block.block);
        const Old* old = plan.trainable() ? wanted(block.block, staleness) : nullptr;
        if (old == nullptr) continue;
        block.epoch = old->epoch;
        block.version = old->version;
        block.weights = old->weights;
        block.checksum.reset();
        at[block.block] = old->version;
        const bool pushed = (plan.owners.bits & work.tasks.bits) != 0;
        if (pushed) on_their_way_[block.block].insert(worker);
    }
    constexpr std::size_t kMostSteps = 64;  // a worker has fewer whose push may be sent again
    if (steps.size() > kMostSteps) steps.erase(steps.begin());
}

void ImposedStaleness::sent(NodeId to, Message& message) {
    if (auto* push = std::get_if<Push>(&message.body)) {
        const auto steps = computed_at_.find(message.envelope.from);
        if (steps == computed_at_.end()) return;
        const auto at = steps->second.find(push->step);
        if (at == steps->second.end()) return;
        for (GradientBlock& block : push->blocks) {
            const auto version = at->second.find(block.block);
            if (version != at->second.end()) block.base = version->second;
        }
    } else if (std::holds_alternative<CancelNote>(message.body)) {
        for (auto& [block, others] : on_their_way_) others.erase(message.envelope.from);
    } else if (const auto* reply = std::get_if<PushReply>(&message.body)) {
        for (const BlockVerdict& verdict : reply->verdicts) {
            const auto others = on_their_way_.find(verdict.block);
            if (others != on_their_way_.end()) others->second.erase(to);
        }
    }
}

void ImposedStaleness::gone(NodeId id) {
    computed_at_.erase(id);
    for (auto& [block, others] : on_their_way_) others.erase(id);
}

}  // namespace detente::sim
