#include <algorithm>
#include <cmath>
#include <cstddef>

#include "common/conflict/gramian.h"
#include "common/conflict/gramian_kernels.h"

// As in gramian_kernels.cpp.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/conflict/combine_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "common/conflict/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace detente::kernels::HWY_NAMESPACE {

// Rows read side by side: as many streams as one core still fetches well.
constexpr std::size_t kGroup = 4;

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
        for (std::size_t i = 0; i < n; i += kGroup) {
            const std::size_t count = std::min(kGroup, n - i);
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

HWY_EXPORT(weigh_all_rows);

void weigh_rows(std::span<const float> weights, std::span<const float* const> rows, float* out,
                std::size_t elements) {
    HWY_DYNAMIC_DISPATCH(weigh_all_rows)(weights.data(), rows.data(), rows.size(), out, elements);
}

}  // namespace detente::kernels
#endif  // HWY_ONCE
