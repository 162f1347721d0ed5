// The weighted mean itself, as local and shared_memory compute it. Pure functions, any thread.
//
// Bits: element e of the mean is ((a₀·g₀[e]) + a₁·g₁[e]) + …, each later term added by one fused
// multiply-add in float, members in the group's order, those of weight 0 left out: the same for
// every instruction set, alignment, and cut into parts (common/conflict/gramian.h, combine).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/collective/group.h"

namespace detente {

// aᵢ = wᵢ / W with W = Σ wᵢ, summed in order; all 0 if W is.
struct MeanShares {
    std::vector<double> of;
    double weight_sum = 0;
};
MeanShares mean_shares(std::span<const double> weights);

// Writes elements [from, from + out.size()) of the mean. A gradient may be nullptr where the share
// is 0. Requires: shares.size() == gradients.size(), one of the shares above 0.
void write_mean(std::span<const double> shares, std::span<const float* const> gradients,
                std::size_t from, std::span<float> out);

// The members (as bits) that do not have the elements of the first; 0 if all agree.
std::uint64_t disagreeing(std::span<const std::uint64_t> elements);
// What a group is told that breaks over them.
std::string disagreement_text(const Group& group, std::span<const std::uint64_t> elements);

}  // namespace detente
