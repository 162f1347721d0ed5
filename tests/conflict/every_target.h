// Runs a piece of test under each instruction set this build holds and this machine can run.
#pragma once

#include <hwy/highway.h>
#include <hwy/targets.h>

#include <cstdint>
#include <vector>

namespace detente::test {

// The instruction sets; at least the build's baseline and, on a machine of the last decade, AVX2.
inline std::vector<std::int64_t> targets() {
    std::vector<std::int64_t> all;
    const std::int64_t supported = hwy::SupportedTargets();
    for (std::int64_t rest = supported & (HWY_SSE4 | HWY_AVX2 | HWY_AVX3); rest != 0;
         rest &= rest - 1) {
        all.push_back(rest & -rest);
    }
    all.push_back(HWY_STATIC_TARGET);
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
