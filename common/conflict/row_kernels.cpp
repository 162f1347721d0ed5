#include "common/conflict/row_kernels.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "common/conflict/gramian.h"
#include "common/conflict/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/conflict/row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "common/conflict/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace detente::kernels::HWY_NAMESPACE {

// Others read side by side with the row.
constexpr std::size_t kBeside = 4;

// Adds to lanes[j][16] the products of a row with kB others, over a multiple of 16 elements.
template <std::size_t kB>
HWY_NOINLINE void multiply_row(const float* row, const float* const* others, std::size_t elements,
                               float* HWY_RESTRICT lanes) {
    const Floats d;
    const float* other[kB];
    for (std::size_t j = 0; j < kB; ++j) other[j] = others[j];
    for (std::size_t part = 0; part < kVectors; ++part) {
        const std::size_t first = part * kWidth;
        FloatVector sum[kB];
        DETENTE_UNROLL for (std::size_t j = 0; j < kB; ++j) {
            sum[j] = hn::LoadU(d, lanes + j * kLanes + first);
        }
        for (std::size_t e = first; e < elements; e += kLanes) {
            const FloatVector x = load_anywhere(row + e);
            DETENTE_UNROLL for (std::size_t j = 0; j < kB; ++j) {
                sum[j] = fused(x, load_anywhere(other[j] + e), sum[j]);
            }
        }
        DETENTE_UNROLL for (std::size_t j = 0; j < kB; ++j) {
            hn::StoreU(sum[j], d, lanes + j * kLanes + first);
        }
    }
}

void multiply(const float* row, const float* const* others, std::size_t count, std::size_t elements,
              float* lanes) {
    if (count == 1) multiply_row<1>(row, others, elements, lanes);
    if (count == 2) multiply_row<2>(row, others, elements, lanes);
    if (count == 3) multiply_row<3>(row, others, elements, lanes);
    if (count == 4) multiply_row<4>(row, others, elements, lanes);
}

void add_products_of_row(const float* row, const float* const* others, std::size_t n,
                         std::size_t elements, double* sums) {
    HWY_ALIGN float lanes[kBeside * kLanes];
    std::vector<float> padding((n + 1) * kLanes, 0.0F);
    std::vector<const float*> at(n);
    for (std::size_t tile = 0; tile < elements; tile += kTileElements) {
        const std::size_t end = std::min(tile + kTileElements, elements);
        const std::size_t whole = (end - tile) / kLanes * kLanes;
        const std::size_t rest = end - tile - whole;
        if (rest > 0) {  // the last few, padded with zeros: a fused 0·0 + c is c
            const auto pad = [&](std::size_t place, const float* from) {
                std::memcpy(padding.data() + place * kLanes,
                            static_cast<const void*>(from + tile + whole), rest * sizeof(float));
            };
            pad(n, row);
            for (std::size_t j = 0; j < n; ++j) pad(j, others[j]);
        }
        for (std::size_t j = 0; j < n; j += kBeside) {
            const std::size_t count = std::min(kBeside, n - j);
            std::fill_n(lanes, count * kLanes, 0.0F);
            for (std::size_t k = 0; k < count; ++k) at[k] = others[j + k] + tile;
            multiply(row + tile, at.data(), count, whole, lanes);
            if (rest > 0) {
                for (std::size_t k = 0; k < count; ++k) at[k] = padding.data() + (j + k) * kLanes;
                multiply(padding.data() + n * kLanes, at.data(), count, kLanes, lanes);
            }
            for (std::size_t k = 0; k < count; ++k) sums[j + k] += fold(lanes + k * kLanes);
        }
    }
}

}  // namespace detente::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace detente::kernels {

HWY_EXPORT(add_products_of_row);

void add_row_products(const float* row, std::span<const float* const> others, std::size_t elements,
                      double* sums) {
    if (others.empty()) return;
    HWY_DYNAMIC_DISPATCH(add_products_of_row)(row, others.data(), others.size(), elements, sums);
}

}  // namespace detente::kernels
#endif  // HWY_ONCE
