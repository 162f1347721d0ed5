#include "common/collective/average.h"

#include "common/conflict/gramian.h"
#include "common/invariant.h"

namespace detente {

MeanShares mean_shares(std::span<const double> weights) {
    MeanShares shares;
    for (const double weight : weights) shares.weight_sum += weight;
    shares.of.assign(weights.size(), 0.0);
    if (shares.weight_sum > 0) {
        for (std::size_t i = 0; i < weights.size(); ++i) {
            shares.of[i] = weights[i] / shares.weight_sum;
        }
    }
    return shares;
}

void write_mean(std::span<const double> shares, std::span<const float* const> gradients,
                std::size_t from, std::span<float> out) {
    const float* rows[kMostGroupMembers];
    double weights[kMostGroupMembers];
    invariant(shares.size() == gradients.size() && shares.size() <= kMostGroupMembers,
              "a share per gradient, and no more than a group has members");
    std::size_t count = 0;
    for (std::size_t i = 0; i < shares.size(); ++i) {
        if (shares[i] == 0) continue;
        rows[count] = gradients[i] + from;
        weights[count++] = shares[i];
    }
    invariant(count > 0, "a mean is over one gradient or more");
    combine({weights, count}, {rows, count}, out);
}

std::uint64_t disagreeing(std::span<const std::uint64_t> elements) {
    std::uint64_t mask = 0;
    for (std::size_t i = 1; i < elements.size(); ++i) {
        if (elements[i] != elements[0]) mask |= std::uint64_t{1} << i;
    }
    return mask;
}

std::string disagreement_text(const Group& group, std::span<const std::uint64_t> elements) {
    std::string text = "members disagree about the bucket's elements:";
    for (std::size_t i = 0; i < elements.size(); ++i) {
        text += (i == 0 ? " " : ", ") + to_string(node_of(group.members[i])) + " has " +
                std::to_string(elements[i]);
    }
    return text + "; all must average the same blocks";
}

}  // namespace detente
