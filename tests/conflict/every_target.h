// Runs a piece of test under each instruction set this build holds and this machine can run.
#pragma once

// The choice of instruction sets comes before Highway.
// clang-format off
#include "common/conflict/targets.h"
#include <hwy/highway.h>
#include <hwy/targets.h>
// clang-format on

#include <algorithm>
#include <cstdint>
#include <vector>

namespace detente::test {

// Baseline included, which every machine runs.
inline std::vector<std::int64_t> targets() {
    std::vector<std::int64_t> all = hwy::SupportedAndGeneratedTargets();
    if (std::find(all.begin(), all.end(), HWY_STATIC_TARGET) == all.end()) {
        all.push_back(HWY_STATIC_TARGET);
    }
    return all;
}

// While it lives, dynamic dispatch chooses `target`.
class UseTarget {
  public:
    explicit UseTarget(std::int64_t target) {
        hwy::SetSupportedTargetsForTest(target);
        hwy::GetChosenTarget().Update(target);
    }
    ~UseTarget() {
        hwy::SetSupportedTargetsForTest(0);
        hwy::GetChosenTarget().DeInit();
    }
    UseTarget(const UseTarget&) = delete;
    UseTarget& operator=(const UseTarget&) = delete;
};

}  // namespace detente::test
