#include "common/conflict/gramian_kernels.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/conflict/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/conflict/gramian_kernels.cpp"
#include <hwy/aligned_allocator.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "common/conflict/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace detente::kernels::HWY_NAMESPACE {

// Rows per register tile: kSide × kAcross accumulators and their operands fit the registers (32
// with AVX-512 and NEON, 16 before).
constexpr std::size_t kSide = 4;
constexpr std::size_t kAcross = HWY_TARGET == HWY_AVX2 ? 3 : 4;

// How many of the 16 lanes' vectors a tile of `accumulators` pairs carries at once: all if they
// fit the registers, else one after another (lanes are independent, so the bits are the same).
constexpr std::size_t vectors_at_once(std::size_t accumulators) {
    return accumulators * kVectors <= 12 ? kVectors : 1;
}

// Adds to lanes[pair][16] the products of kA rows among themselves (pairs i <= j in row order).
template <std::size_t kA>
HWY_NOINLINE void multiply_among(const float* const* rows, std::size_t offset, std::size_t elements,
                                 float* HWY_RESTRICT lanes) {
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
            DETENTE_UNROLL for (std::size_t v = 0; v < kAtOnce; ++v) {
                FloatVector x[kA];
                DETENTE_UNROLL for (std::size_t i = 0; i < kA; ++i) {
                    x[i] = load_anywhere(row[i] + e + v * kWidth);
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
            DETENTE_UNROLL for (std::size_t j = 0; j < kB; ++j) y[j] = load_anywhere(b[j] + e);
            DETENTE_UNROLL for (std::size_t i = 0; i < kSide; ++i) {
                const FloatVector x = load_anywhere(a[i] + e);
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

void among(const float* const* rows, std::size_t count, std::size_t offset, std::size_t elements,
           float* lanes) {
    if (count == 1) multiply_among<1>(rows, offset, elements, lanes);
    if (count == 2) multiply_among<2>(rows, offset, elements, lanes);
    if (count == 3) multiply_among<3>(rows, offset, elements, lanes);
    if (count == 4) multiply_among<4>(rows, offset, elements, lanes);
}

void across(const float* const* rows, const float* const* others, std::size_t count,
            std::size_t offset, std::size_t elements, float* lanes) {
    if (count == 1) multiply_across<1>(rows, others, offset, elements, lanes);
    if (count == 2) multiply_across<2>(rows, others, offset, elements, lanes);
    if (count == 3) multiply_across<3>(rows, others, offset, elements, lanes);
    if constexpr (kAcross == 4) {
        if (count == 4) multiply_across<4>(rows, others, offset, elements, lanes);
    }
}

// How wide the next register tile is when `left` rows are left: two even ones rather than a full
// one and a sliver too narrow to hide latency.
std::size_t next_width(std::size_t left) {
    return left == kAcross + 1 ? (left + 1) / 2 : std::min(kAcross, left);
}

// Adds the products of all pairs over `elements` (a multiple of 16) to their lanes, in register
// tiles of kSide × at most kAcross rows.
void add_strip(const float* const* rows, std::size_t n, std::size_t offset, std::size_t elements,
               float* lanes) {
    for (std::size_t i = 0; i < n; i += kSide) {
        const std::size_t side = std::min(kSide, n - i);
        among(rows + i, side, offset, elements, lanes);
        lanes += side * (side + 1) / 2 * kLanes;
        for (std::size_t j = i + kSide; j < n;) {
            const std::size_t width = next_width(n - j);
            across(rows + i, rows + j, width, offset, elements, lanes);
            lanes += kSide * width * kLanes;
            j += width;
        }
    }
}

// Folds the lanes of all pairs, in the order of add_strip, into their sums.
void fold_tile(float* lanes, std::size_t n, double* sums) {
    for (std::size_t i0 = 0; i0 < n; i0 += kSide) {
        const std::size_t end = std::min(i0 + kSide, n);
        for (std::size_t i = i0; i < end; ++i) {
            for (std::size_t j = i; j < end; ++j, lanes += kLanes) sums[i * n + j] += fold(lanes);
        }
        for (std::size_t j0 = end; j0 < n;) {
            const std::size_t width = next_width(n - j0);
            for (std::size_t i = i0; i < end; ++i) {
                for (std::size_t j = j0; j < j0 + width; ++j, lanes += kLanes) {
                    sums[i * n + j] += fold(lanes);
                }
            }
            j0 += width;
        }
    }
}

// How far all register tiles go before the next stretch, so that what the first of them fetched is
// still in the first-level cache for the last, and fetching overlaps with multiplying. Lanes
// outlive a strip: its length moves no bits.
constexpr std::size_t strip_elements(std::size_t n) {
    return n <= kSide ? kTileElements : n <= 16 ? 128 : 256;
}

void add_all_products(const float* const* rows, std::size_t n, std::size_t elements, double* sums) {
    const auto lanes = hwy::AllocateAligned<float>(n * (n + 1) / 2 * kLanes);
    std::vector<float> padding(n * kLanes, 0.0F);
    std::vector<const float*> padded(n);
    for (std::size_t i = 0; i < n; ++i) padded[i] = padding.data() + i * kLanes;
    const std::size_t strip = strip_elements(n);
    for (std::size_t tile = 0; tile < elements; tile += kTileElements) {
        std::fill_n(lanes.get(), n * (n + 1) / 2 * kLanes, 0.0F);
        const std::size_t end = std::min(tile + kTileElements, elements);
        const std::size_t whole_end = tile + (end - tile) / kLanes * kLanes;
        for (std::size_t e = tile; e < whole_end; e += strip) {
            add_strip(rows, n, e, std::min(strip, whole_end - e), lanes.get());
        }
        if (whole_end < end) {  // the last few, padded with zeros: a fused 0·0 + c is c
            for (std::size_t i = 0; i < n; ++i) {
                std::memcpy(padding.data() + i * kLanes,
                            static_cast<const void*>(rows[i] + whole_end),
                            (end - whole_end) * sizeof(float));
            }
            add_strip(padded.data(), n, 0, kLanes, lanes.get());
        }
        fold_tile(lanes.get(), n, sums);
    }
}

const char* this_instruction_set() { return hwy::TargetName(HWY_TARGET); }

}  // namespace detente::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente::kernels {

HWY_EXPORT(add_all_products);
HWY_EXPORT(this_instruction_set);

void add_products(std::span<const float* const> rows, std::size_t elements, double* sums) {
    HWY_DYNAMIC_DISPATCH(add_all_products)(rows.data(), rows.size(), elements, sums);
}

const char* instruction_set() { return HWY_DYNAMIC_DISPATCH(this_instruction_set)(); }

}  // namespace detente::kernels
#endif  // HWY_ONCE
