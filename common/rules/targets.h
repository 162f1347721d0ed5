// Which instruction sets vector kernels are compiled for, on x86: the baseline, AVX2 (with FMA) and
// AVX-512. SSSE3 and SSE4 have no FMA, so they would only emulate it, as the baseline does.
// Include before any Highway header.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
