// Gradient vaccine as its paper's algorithm 1 and equation 4 write it: in double, on the gradients
// themselves, one pair after the other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/random.h"
#include "tests/reference/conflict_reference.h"

namespace detente::reference {

// Owned by a test. Keeps a target cosine for each ordered pair of tasks, from 0.
class GradVacReference {
  public:
    using Orders = std::vector<std::vector<std::uint32_t>>;  // order[i]: whom i visits

    GradVacReference(std::size_t tasks, double beta)
        : beta_(beta), targets_(tasks, std::vector<double>(tasks, 0.0)) {}

    // The orders that a step with this key draws.
    Orders drawn(std::uint64_t step_key) const {
        Orders orders;
        for (std::size_t i = 0; i < targets_.size(); ++i) {
            orders.push_back(permutation(random_key(step_key, Purpose::aggregator, {i}),
                                         static_cast<std::uint32_t>(targets_.size())));
        }
        return orders;
    }

    Row step(const Rows& rows, const Orders& orders) {
        Row total(rows[0].size(), 0.0);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            Row g = rows[i];
            for (const std::uint32_t j : orders[i]) {
                if (j != i) meet(g, rows[j], targets_[i][j]);
            }
            for (std::size_t k = 0; k < g.size(); ++k) total[k] += g[k];
        }
        return total;
    }

    // φ̂, row by row.
    std::vector<double> targets() const {
        std::vector<double> all;
        for (const auto& row : targets_) all.insert(all.end(), row.begin(), row.end());
        return all;
    }
    // How often a gradient was moved, and how often towards a cosine above 0.
    int moves() const { return moves_; }
    int moves_beyond_surgery() const { return beyond_; }

  private:
    void meet(Row& g, const Row& other, double& target) {
        const double length = std::sqrt(dot(g, g));
        const double of_other = std::sqrt(dot(other, other));
        if (length == 0 || of_other == 0) return;
        const double phi = std::clamp(dot(g, other) / (length * of_other), -1.0, 1.0);
        if (phi < target) {
            ++moves_;
            if (target > 0) ++beyond_;
            // At a target of exactly 1 the formula divides by zero.
            const double wanted = std::clamp(target, -1 + 1e-6, 1 - 1e-6);
            const double above =
                length * (wanted * std::sqrt(1 - phi * phi) - phi * std::sqrt(1 - wanted * wanted));
            const double factor = above / (of_other * std::sqrt(1 - wanted * wanted));
            for (std::size_t k = 0; k < g.size(); ++k) g[k] += factor * other[k];
        }
        target = (1 - beta_) * target + beta_ * phi;
    }

    double beta_;
    std::vector<std::vector<double>> targets_;
    int moves_ = 0;
    int beyond_ = 0;
};

}  // namespace detente::reference
