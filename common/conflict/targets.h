// Which instruction sets the conflict kernels are compiled for. Include before any Highway header.
#pragma once

// SVE's and RISC-V's sizeless vectors cannot sit in the kernels' register tiles (such machines take
// NEON or the baseline). SSSE3 would run what SSE4 runs. What is left has vectors of 1, 4, 8 and 16
// floats on x86.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSSE3)
