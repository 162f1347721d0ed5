#include "launch/fuzz_parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <variant>
#include <vector>

#include "common/random.h"

namespace detente {
namespace {

constexpr double kNoUpperBound = 1e18;  // ParameterSpec's own default

double drawn_real(const ParameterSpec& spec, double standard, Random random) {
    // Not the upper bound itself: momentum and memory without an end.
    constexpr double kShares[] = {0, 0.25, 0.5, 0.75};
    if (spec.highest < kNoUpperBound) {
        return spec.lowest + kShares[random.below(4)] * (spec.highest - spec.lowest);
    }
    // 0 stands for a value taken from elsewhere (1 / learning rate); a large one makes small steps.
    if (standard == 0) return random.below(2) == 0 ? 0 : 1e4;
    constexpr double kTimes[] = {0, 0.25, 0.5, 2, 4};
    return std::max(spec.lowest, standard * kTimes[random.below(5)]);
}

}  // namespace

std::string drawn_value(const ParameterSpec& spec, std::uint64_t key) {
    Random random(key);
    if (!spec.choices.empty()) return spec.choices[random.below(spec.choices.size())];
    if (random.below(4) == 0) return standard_text(spec);
    if (std::holds_alternative<double>(spec.standard)) {
        return fmt::format("{}", drawn_real(spec, std::get<double>(spec.standard), random));
    }
    const auto lowest = static_cast<std::uint64_t>(spec.lowest);
    const auto highest = static_cast<std::uint64_t>(spec.highest);
    return fmt::format("{}", std::min(highest, lowest + random.below(1 + random.below(6))));
}

ParameterList drawn_parameters(const std::string& policy, std::uint64_t seed, std::uint64_t part) {
    ParameterList drawn;
    for (const ParameterSpec& spec : parameter_specs(policy)) {
        const std::uint64_t key = random_key(seed, Purpose::test, {part, drawn.size()});
        drawn.emplace_back(spec.name, drawn_value(spec, key));
    }
    return drawn;
}

}  // namespace detente
