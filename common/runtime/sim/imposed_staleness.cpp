#include "common/runtime/sim/imposed_staleness.h"

#include <algorithm>
#include <cmath>

#include "common/random.h"

namespace detente::sim {

std::vector<std::string> imposed_staleness_names() {
    return {"none", "constant", "uniform", "geometric", "poisson"};
}

std::uint64_t ImposedStaleness::draw(NodeId worker) {
    const double mean = config_.mean;
    Random random(
        random_key(seed_, Purpose::imposed_staleness, {worker.index, replies_[worker]++}));
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

void ImposedStaleness::alter(NodeId to, Message& message) {
    if (to.role != Role::worker) return;
    if (auto* pulled = std::get_if<PullReply>(&message.body)) alter(pulled->blocks, draw(to));
    if (auto* pushed = std::get_if<PushReply>(&message.body)) {
        if (!pushed->blocks.empty()) alter(pushed->blocks, draw(to));
    }
}

void ImposedStaleness::alter(std::vector<WeightBlock>& blocks, std::uint64_t staleness) {
    for (WeightBlock& block : blocks) {
        std::deque<Old>& history = history_[block.block];
        const bool news = history.empty() || history.back().version < block.version ||
                          history.back().epoch < block.epoch;
        if (news) {
            history.push_back({block.epoch,
                               block.version,
                               {block.weights.bytes.begin(), block.weights.bytes.end()}});
            if (history.size() > std::size_t{config_.most} + 1) history.pop_front();
        }
        const std::uint64_t wanted =
            block.version.value > staleness ? block.version.value - staleness : 0;
        const auto old = std::find_if(history.begin(), history.end(), [&](const Old& one) {
            return one.epoch == block.epoch && one.version.value >= wanted;
        });
        if (old == history.end() || old->version >= block.version) continue;
        block.version = old->version;
        block.weights = copy_of(old->weights);
        block.checksum.reset();
    }
}

}  // namespace detente::sim
