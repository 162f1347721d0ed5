#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/conflict/gramian_kernels.h"
#include "common/conflict/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/conflict/combine_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "common/conflict/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace detente::kernels::HWY_NAMESPACE {

// Rows read side by side: as many streams as one core still fetches well.
constexpr std::size_t kGroup = 4;

// One group of rows over a multiple of 16 elements: w₀·r₀ (or, unless it is the first group, what
// earlier groups left in `source`, + w₀·r₀), then + the others.
template <std::size_t kRows, bool kFirst>
void weigh_group(const float* weights, const float* const* rows, std::size_t offset,
                 std::size_t elements, const float* source, float* target) {
    const Floats d;
    const float* row[kRows];
    FloatVector w[kRows];
    for (std::size_t i = 0; i < kRows; ++i) row[i] = rows[i] + offset;
    for (std::size_t i = 0; i < kRows; ++i) w[i] = hn::Set(d, weights[i]);
    for (std::size_t e = 0; e < elements; e += kWidth) {
        FloatVector sum = kFirst
                              ? hn::Mul(w[0], load_anywhere(row[0] + e))
                              : fused(w[0], load_anywhere(row[0] + e), load_anywhere(source + e));
        DETENTE_UNROLL for (std::size_t i = 1; i < kRows; ++i) {
            sum = fused(w[i], load_anywhere(row[i] + e), sum);
        }
        store_anywhere(sum, target + e);
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

// Four rows at a time over at most a tile (a multiple of 16), which stays in the first-level cache;
// only the last group writes to out, so out may be one of the rows.
void weigh_tile(const float* weights, const float* const* rows, std::size_t n, std::size_t offset,
                std::size_t elements, float* out) {
    HWY_ALIGN float partial[kTileElements];
    for (std::size_t i = 0; i < n; i += kGroup) {
        const std::size_t count = std::min(kGroup, n - i);
        float* target = i + count == n ? out : partial;
        if (i == 0) {
            weigh_up_to_four<true>(count, weights, rows, offset, elements, nullptr, target);
        } else {
            weigh_up_to_four<false>(count, weights + i, rows + i, offset, elements, partial,
                                    target);
        }
    }
}

void weigh_all_rows(const float* weights, const float* const* rows, std::size_t n, float* out,
                    std::size_t elements) {
    const std::size_t whole = elements / kLanes * kLanes;
    for (std::size_t offset = 0; offset < whole; offset += kTileElements) {
        weigh_tile(weights, rows, n, offset, std::min(kTileElements, whole - offset), out + offset);
    }
    if (whole == elements) return;
    // The last few, padded.
    const std::size_t tail_bytes = (elements - whole) * sizeof(float);
    std::vector<float> padding(n * kLanes, 0.0F);
    std::vector<const float*> padded(n);
    for (std::size_t i = 0; i < n; ++i) {
        padded[i] = padding.data() + i * kLanes;
        std::memcpy(padding.data() + i * kLanes, static_cast<const void*>(rows[i] + whole),
                    tail_bytes);
    }
    HWY_ALIGN float tail[kLanes];
    weigh_tile(weights, padded.data(), n, 0, kLanes, tail);
    std::memcpy(static_cast<void*>(out + whole), tail, tail_bytes);
}

}  // namespace detente::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente::kernels {

HWY_EXPORT(weigh_all_rows);

void weigh_rows(std::span<const float> weights, std::span<const float* const> rows, float* out,
                std::size_t elements) {
    HWY_DYNAMIC_DISPATCH(weigh_all_rows)(weights.data(), rows.data(), rows.size(), out, elements);
}

}  // namespace detente::kernels
#endif  // HWY_ONCE
