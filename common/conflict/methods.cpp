#include "common/conflict/methods.h"

#include <fmt/format.h>

#include <cmath>

#include "common/invariant.h"

namespace detente::methods {

std::optional<std::string_view> parameter(const AggregatorConfig& config, std::string_view name) {
    for (const auto& [key, value] : config.parameters) {
        if (key == name) return value;
    }
    return std::nullopt;
}

Result<void> check_finite(const AggregatorInput& input) {
    invariant(input.gramian != nullptr, "an aggregator is given a Gramian");
    const Gramian& g = *input.gramian;
    const std::size_t n = g.tasks();
    // A row with NaN or Inf shows on the diagonal; off it, it would accuse its partner as well.
    for (std::size_t i = 0; i < n; ++i) {
        if (std::isfinite(g.at(i, i))) continue;
        return fail(ErrorCode::not_finite,
                    fmt::format("the gradient of task {} should be finite, but its squared norm is "
                                "{}: it holds NaN or Inf, or elements beyond 1e19. Look at the "
                                "task's loss and learning rate, or clip its gradient",
                                i, g.at(i, i)));
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (std::isfinite(g.at(i, j))) continue;
            return fail(ErrorCode::not_finite,
                        fmt::format("the inner product of the gradients of task {} and task {} "
                                    "should be finite, but is {}",
                                    i, j, g.at(i, j)));
        }
    }
    for (std::size_t i = 0; i < input.losses.size(); ++i) {
        if (std::isfinite(input.losses[i])) continue;
        return fail(ErrorCode::not_finite, fmt::format("the loss of task {} should be finite, but "
                                                       "is {}. Look at its batch and learning rate",
                                                       i, input.losses[i]));
    }
    return {};
}

bool all_zero(const Gramian& gramian) {
    for (std::size_t i = 0; i < gramian.tasks(); ++i) {
        if (gramian.at(i, i) != 0) return false;
    }
    return true;
}

}  // namespace detente::methods
