// Interference index of a set of shared coordinates, of which G is the Gramian of the task
// gradients: Σ_{i<j} max(0, −gᵢ·gⱼ) / Σ_{i<j} ‖gᵢ‖‖gⱼ‖, in [0, 1]; 0 where nothing is shared. Of
// many steps: both sums over all of them, so that steps with long gradients count for more.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "common/conflict/gramian.h"

namespace detente {

class InterferenceIndex {
  public:
    // Pairs whose product or lengths are not finite are left out.
    void add(const Gramian& gramian) {
        for (std::size_t i = 0; i < gramian.tasks(); ++i) {
            for (std::size_t j = i + 1; j < gramian.tasks(); ++j) {
                const double norms = std::sqrt(std::max(0.0, gramian.at(i, i))) *
                                     std::sqrt(std::max(0.0, gramian.at(j, j)));
                if (!std::isfinite(norms) || !std::isfinite(gramian.at(i, j))) continue;
                opposed_ += std::max(0.0, -gramian.at(i, j));
                norms_ += norms;
            }
        }
    }
    double opposed() const { return opposed_; }
    double norms() const { return norms_; }
    // The root of a product and the product of two roots may differ in the last bit.
    double value() const { return norms_ > 0 ? std::min(1.0, opposed_ / norms_) : 0; }

  private:
    double opposed_ = 0;
    double norms_ = 0;
};

}  // namespace detente
