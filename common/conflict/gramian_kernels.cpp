#include "common/conflict/gramian_kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/conflict/gramian.h"

// SVE's sizeless vectors cannot sit in the register tiles below; such machines take NEON.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/conflict/gramian_kernels.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Register tiles stay in registers only if GCC unrolls the loops over them.
#ifndef DETENTE_UNROLL
#if defined(__clang__)
#define DETENTE_UNROLL _Pragma("unroll")
#else
#define DETENTE_UNROLL _Pragma("GCC unroll 16")
#endif
#endif

HWY_BEFORE_NAMESPACE();
namespace detente::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The virtual lanes, cut into as many vectors as this instruction set needs.
constexpr std::size_t kLanes = 16;
using Floats = hn::CappedTag<float, kLanes>;
using FloatVector = hn::Vec<Floats>;
constexpr std::size_t kWidth = hn::MaxLanes(Floats());
constexpr std::size_t kVectors = kLanes / kWidth;
// Rows per register tile: kSide × kAcross accumulators and their operands fit the registers (32
// with AVX-512 and NEON, 16 before).
constexpr std::size_t kSide = 4;
constexpr std::size_t kAcross = HWY_TARGET == HWY_AVX2 ? 3 : 4;

// a·b + c, rounded once on every instruction set.
HWY_INLINE FloatVector fused(FloatVector a, FloatVector b, FloatVector c) {
#if HWY_NATIVE_FMA
    return hn::MulAdd(a, b, c);
#else
    const Floats d;
    HWY_ALIGN float x[kWidth];
    HWY_ALIGN float y[kWidth];
    HWY_ALIGN float z[kWidth];
    hn::Store(a, d, x);
    hn::Store(b, d, y);
    hn::Store(c, d, z);
    for (std::size_t i = 0; i < kWidth; ++i) z[i] = std::fma(x[i], y[i], z[i]);
    return hn::Load(d, z);
#endif
}

// How many of the 16 lanes' vectors a tile of `accumulators` pairs carries at once: all if they
// fit the registers, else one after another (lanes are independent, so the bits are the same).
constexpr std::size_t vectors_at_once(std::size_t accumulators) {
    return accumulators * kVectors <= 12 ? kVectors : 1;
}

// Adds to lanes[pair][16] the products of kA rows among themselves (pairs i <= j in row order).
// Reads each row for the first time in its tile, so it also asks for what lies `ahead` elements on.
template <std::size_t kA>
HWY_NOINLINE void multiply_among(const float* const* rows, std::size_t offset, std::size_t elements,
                                 std::size_t ahead, float* HWY_RESTRICT lanes) {
    constexpr std::size_t kPairs = kA * (kA + 1) / 2;
    constexpr std::size_t kAtOnce = vectors_at_once(kPairs);
    const Floats d;
    const float* row[kA];
    for (std::size_t i = 0; i < kA; ++i) row[i] = rows[i] + offset;
    for (std::size_t part = 0; part < kVectors; part += kAtOnce) {
        const std::size_t first = part * kWidth;
        FloatVector sum[kPairs * kAtOnce];
        DETENTE_UNROLL for (std::size_t p = 0; p < kPairs; ++p) {
            DETENTE_UNROLL for (std::size_t v = 0; v < kAtOnce; ++v) {
                sum[p * kAtOnce + v] = hn::Load(d, lanes + p * kLanes + first + v * kWidth);
            }
        }
        for (std::size_t e = first; e < elements; e += kLanes) {
            if (part == 0) {
                DETENTE_UNROLL for (std::size_t i = 0; i < kA; ++i) {
                    hwy::Prefetch(row[i] + e + ahead);
                }
            }
            DETENTE_UNROLL for (std::size_t v = 0; v < kAtOnce; ++v) {
                FloatVector x[kA];
                DETENTE_UNROLL for (std::size_t i = 0; i < kA; ++i) {
                    x[i] = hn::LoadU(d, row[i] + e + v * kWidth);
                }
                std::size_t p = 0;
                DETENTE_UNROLL for (std::size_t i = 0; i < kA; ++i) {
                    DETENTE_UNROLL for (std::size_t j = i; j < kA; ++j, ++p) {
                        sum[p * kAtOnce + v] = fused(x[i], x[j], sum[p * kAtOnce + v]);
                    }
                }
            }
        }
        DETENTE_UNROLL for (std::size_t p = 0; p < kPairs; ++p) {
            DETENTE_UNROLL for (std::size_t v = 0; v < kAtOnce; ++v) {
                hn::Store(sum[p * kAtOnce + v], d, lanes + p * kLanes + first + v * kWidth);
            }
        }
    }
}

// Adds to lanes[i·kB + j][16] the products of kSide rows with kB others.
template <std::size_t kB>
HWY_NOINLINE void multiply_across(const float* const* rows, const float* const* others,
                                  std::size_t offset, std::size_t elements,
                                  float* HWY_RESTRICT lanes) {
    constexpr std::size_t kPairs = kSide * kB;
    const Floats d;
    const float* a[kSide];
    const float* b[kB];
    for (std::size_t i = 0; i < kSide; ++i) a[i] = rows[i] + offset;
    for (std::size_t j = 0; j < kB; ++j) b[j] = others[j] + offset;
    for (std::size_t part = 0; part < kVectors; ++part) {
        const std::size_t first = part * kWidth;
        FloatVector sum[kPairs];
        DETENTE_UNROLL for (std::size_t p = 0; p < kPairs; ++p) {
            sum[p] = hn::Load(d, lanes + p * kLanes + first);
        }
        for (std::size_t e = first; e < elements; e += kLanes) {
            FloatVector y[kB];
            DETENTE_UNROLL for (std::size_t j = 0; j < kB; ++j) y[j] = hn::LoadU(d, b[j] + e);
            DETENTE_UNROLL for (std::size_t i = 0; i < kSide; ++i) {
                const FloatVector x = hn::LoadU(d, a[i] + e);
                DETENTE_UNROLL for (std::size_t j = 0; j < kB; ++j) {
                    sum[i * kB + j] = fused(x, y[j], sum[i * kB + j]);
                }
            }
        }
        DETENTE_UNROLL for (std::size_t p = 0; p < kPairs; ++p) {
            hn::Store(sum[p], d, lanes + p * kLanes + first);
        }
    }
}

// The 16 lanes in double: lane l with l + 8, then l + 4, l + 2, l + 1.
HWY_INLINE double fold(const float* lanes) {
    constexpr std::size_t kHalf = kLanes / 2;
    const hn::CappedTag<double, kHalf> d;
    const hn::Rebind<float, decltype(d)> narrow;
    HWY_ALIGN double s[kHalf];
    for (std::size_t l = 0; l < kHalf; l += hn::Lanes(d)) {
        hn::Store(hn::Add(hn::PromoteTo(d, hn::Load(narrow, lanes + l)),
                          hn::PromoteTo(d, hn::Load(narrow, lanes + l + kHalf))),
                  d, s + l);
    }
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

// A tile of all rows: whole groups of 16 elements in place, the last few copied and padded with
// zeros (a fused 0·0 + c is c).
struct Tile {
    const float* const* rows;
    const float* const* padded;
    std::size_t offset;
    std::size_t whole;
    bool tail;
    std::size_t ahead;
};

void among(const Tile& tile, std::size_t i0, std::size_t count, float* lanes) {
    const auto run = [&](const float* const* rows, std::size_t offset, std::size_t elements,
                         std::size_t ahead) {
        if (count == 1) multiply_among<1>(rows + i0, offset, elements, ahead, lanes);
        if (count == 2) multiply_among<2>(rows + i0, offset, elements, ahead, lanes);
        if (count == 3) multiply_among<3>(rows + i0, offset, elements, ahead, lanes);
        if (count == 4) multiply_among<4>(rows + i0, offset, elements, ahead, lanes);
    };
    run(tile.rows, tile.offset, tile.whole, tile.ahead);
    if (tile.tail) run(tile.padded, 0, kLanes, 0);
}

void across(const Tile& tile, std::size_t i0, std::size_t j0, std::size_t count, float* lanes) {
    const auto run = [&](const float* const* rows, std::size_t offset, std::size_t elements) {
        const float* const* a = rows + i0;
        const float* const* b = rows + j0;
        if (count == 1) multiply_across<1>(a, b, offset, elements, lanes);
        if (count == 2) multiply_across<2>(a, b, offset, elements, lanes);
        if (count == 3) multiply_across<3>(a, b, offset, elements, lanes);
        if constexpr (kAcross == 4) {
            if (count == 4) multiply_across<4>(a, b, offset, elements, lanes);
        }
    };
    run(tile.rows, tile.offset, tile.whole);
    if (tile.tail) run(tile.padded, 0, kLanes);
}

// All pairs of one tile, in register tiles of kSide × at most kAcross rows.
void add_tile(const Tile& tile, std::size_t n, double* sums) {
    HWY_ALIGN float lanes[kSide * kSide * kLanes];
    for (std::size_t i0 = 0; i0 < n; i0 += kSide) {
        const std::size_t side = std::min(kSide, n - i0);
        std::fill_n(lanes, side * (side + 1) / 2 * kLanes, 0.0F);
        among(tile, i0, side, lanes);
        const float* pair = lanes;
        for (std::size_t i = i0; i < i0 + side; ++i) {
            for (std::size_t j = i; j < i0 + side; ++j, pair += kLanes) {
                sums[i * n + j] += fold(pair);
            }
        }
        for (std::size_t j0 = i0 + kSide; j0 < n;) {
            const std::size_t left = n - j0;
            // Two even tiles rather than a full one and a sliver too narrow to hide latency.
            const std::size_t width =
                left == kAcross + 1 ? (left + 1) / 2 : std::min(kAcross, left);
            std::fill_n(lanes, kSide * width * kLanes, 0.0F);
            across(tile, i0, j0, width, lanes);
            for (std::size_t p = 0; p < kSide * width; ++p) {
                sums[(i0 + p / width) * n + j0 + p % width] += fold(lanes + p * kLanes);
            }
            j0 += width;
        }
    }
}

void add_all_products(const float* const* rows, std::size_t n, std::size_t elements, double* sums) {
    std::vector<float> padding(n * kLanes, 0.0F);
    std::vector<const float*> padded(n);
    for (std::size_t i = 0; i < n; ++i) padded[i] = padding.data() + i * kLanes;
    for (std::size_t offset = 0; offset < elements; offset += kTileElements) {
        const std::size_t size = std::min(kTileElements, elements - offset);
        const std::size_t whole = size / kLanes * kLanes;
        for (std::size_t i = 0; i < n && whole < size; ++i) {
            std::copy_n(rows[i] + offset + whole, size - whole, padding.data() + i * kLanes);
        }
        const bool more = offset + 2 * kTileElements <= elements;
        add_tile({rows, padded.data(), offset, whole, whole < size, more ? kTileElements : 0}, n,
                 sums);
    }
}

// One group of rows: target = first ? w₀·r₀ : source, then += the others.
template <std::size_t kRows, bool kFirst>
void weigh_group(const float* weights, const float* const* rows, std::size_t offset,
                 std::size_t elements, const float* source, float* target) {
    const Floats d;
    const float* row[kRows];
    FloatVector w[kRows];
    for (std::size_t i = 0; i < kRows; ++i) row[i] = rows[i] + offset;
    for (std::size_t i = 0; i < kRows; ++i) w[i] = hn::Set(d, weights[i]);
    std::size_t e = 0;
    for (; e + kWidth <= elements; e += kWidth) {
        FloatVector sum = kFirst ? hn::Mul(w[0], hn::LoadU(d, row[0] + e))
                                 : fused(w[0], hn::LoadU(d, row[0] + e), hn::LoadU(d, source + e));
        DETENTE_UNROLL for (std::size_t i = 1; i < kRows; ++i) {
            sum = fused(w[i], hn::LoadU(d, row[i] + e), sum);
        }
        hn::StoreU(sum, d, target + e);
    }
    for (; e < elements; ++e) {
        float sum = kFirst ? weights[0] * row[0][e] : std::fma(weights[0], row[0][e], source[e]);
        for (std::size_t i = 1; i < kRows; ++i) sum = std::fma(weights[i], row[i][e], sum);
        target[e] = sum;
    }
}

template <bool kFirst>
void weigh_up_to_four(std::size_t count, const float* weights, const float* const* rows,
                      std::size_t offset, std::size_t elements, const float* source,
                      float* target) {
    if (count == 1) weigh_group<1, kFirst>(weights, rows, offset, elements, source, target);
    if (count == 2) weigh_group<2, kFirst>(weights, rows, offset, elements, source, target);
    if (count == 3) weigh_group<3, kFirst>(weights, rows, offset, elements, source, target);
    if (count == 4) weigh_group<4, kFirst>(weights, rows, offset, elements, source, target);
}

// Four rows at a time over a tile that stays in the first-level cache; only the last group writes
// to out, so out may be one of the rows.
void weigh_all_rows(const float* weights, const float* const* rows, std::size_t n, float* out,
                    std::size_t elements) {
    HWY_ALIGN float partial[kTileElements];
    for (std::size_t offset = 0; offset < elements; offset += kTileElements) {
        const std::size_t size = std::min(kTileElements, elements - offset);
        for (std::size_t i = 0; i < n; i += kSide) {
            const std::size_t count = std::min(kSide, n - i);
            float* target = i + count == n ? out + offset : partial;
            if (i == 0) {
                weigh_up_to_four<true>(count, weights, rows, offset, size, nullptr, target);
            } else {
                weigh_up_to_four<false>(count, weights + i, rows + i, offset, size, partial,
                                        target);
            }
        }
    }
}

}  // namespace detente::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente::kernels {

HWY_EXPORT(add_all_products);
HWY_EXPORT(weigh_all_rows);

void add_products(std::span<const float* const> rows, std::size_t elements, double* sums) {
    HWY_DYNAMIC_DISPATCH(add_all_products)(rows.data(), rows.size(), elements, sums);
}

void weigh_rows(std::span<const float> weights, std::span<const float* const> rows, float* out,
                std::size_t elements) {
    HWY_DYNAMIC_DISPATCH(weigh_all_rows)(weights.data(), rows.data(), rows.size(), out, elements);
}

}  // namespace detente::kernels
#endif  // HWY_ONCE
