// The loop all rules share: loads a vector of weights, gradient and state, hands them to a rule's
// formula, stores what comes back. Compiled once per instruction set (Highway's foreach_target);
// include only below "hwy/foreach_target.h".
//
// Bits: a formula works on each element alone and multiplies-and-adds through fused() only, so the
// result depends neither on the vector width nor on where an element lies in the array.
#if defined(DETENTE_COMMON_RULES_SWEEP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DETENTE_COMMON_RULES_SWEEP_INL_H_
#undef DETENTE_COMMON_RULES_SWEEP_INL_H_
#else
#define DETENTE_COMMON_RULES_SWEEP_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/rules/rule.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using Floats = hn::Vec<Lanes>;

// a·b + c, rounded once on every target.
HWY_INLINE Floats fused(Floats a, Floats b, Floats c) {
#if HWY_NATIVE_FMA
    return hn::MulAdd(a, b, c);
#else
    const Lanes lanes;
    HWY_ALIGN float x[hn::MaxLanes(lanes)];
    HWY_ALIGN float y[hn::MaxLanes(lanes)];
    HWY_ALIGN float z[hn::MaxLanes(lanes)];
    hn::Store(a, lanes, x);
    hn::Store(b, lanes, y);
    hn::Store(c, lanes, z);
    for (std::size_t i = 0; i < hn::Lanes(lanes); ++i) x[i] = std::fma(x[i], y[i], z[i]);
    return hn::Load(lanes, x);
#endif
}

HWY_INLINE Floats all(float value) { return hn::Set(Lanes(), value); }

// Floats at any address: read as bytes, so that no misaligned float is ever touched.
HWY_INLINE Floats load_bytes(const std::byte* bytes) {
    const Lanes lanes;
#if HWY_NATIVE_FMA
    const hn::Repartition<std::uint8_t, Lanes> octets;
    return hn::BitCast(lanes, hn::LoadU(octets, reinterpret_cast<const std::uint8_t*>(bytes)));
#else
    HWY_ALIGN float aligned[hn::MaxLanes(lanes)];
    std::memcpy(aligned, bytes, hn::Lanes(lanes) * sizeof(float));
    return hn::Load(lanes, aligned);
#endif
}

// One vector of each array from element `i` on.
template <int kSlots, class Formula>
HWY_INLINE void sweep_vector(const Formula& formula, Floats gradient, std::size_t i,
                             const float* weights_in, float* weights_out, float* slot0,
                             float* slot1) {
    const Lanes lanes;
    const Floats weights = hn::LoadU(lanes, weights_in + i);
    if constexpr (kSlots == 0) {
        hn::StoreU(formula(weights, gradient), lanes, weights_out + i);
    } else if constexpr (kSlots == 1) {
        Floats first = hn::LoadU(lanes, slot0 + i);
        const Floats updated = formula(weights, gradient, first);
        hn::StoreU(updated, lanes, weights_out + i);
        hn::StoreU(first, lanes, slot0 + i);
    } else {
        Floats first = hn::LoadU(lanes, slot0 + i);
        Floats second = hn::LoadU(lanes, slot1 + i);
        const Floats updated = formula(weights, gradient, first, second);
        hn::StoreU(updated, lanes, weights_out + i);
        hn::StoreU(first, lanes, slot0 + i);
        hn::StoreU(second, lanes, slot1 + i);
    }
}

// The last elements, fewer than a vector, go through the same formula by way of padded copies.
template <int kSlots, class Formula>
HWY_INLINE void sweep_tail(const Formula& formula, Floats limit, bool clips, std::size_t i,
                           const RuleArrays& arrays) {
    const Lanes lanes;
    const std::size_t bytes = (arrays.weights_in.size() - i) * sizeof(float);
    HWY_ALIGN float weights[hn::MaxLanes(lanes)] = {};
    HWY_ALIGN float slope[hn::MaxLanes(lanes)] = {};
    HWY_ALIGN float first[hn::MaxLanes(lanes)] = {};
    HWY_ALIGN float second[hn::MaxLanes(lanes)] = {};
    std::memcpy(weights, arrays.weights_in.data() + i, bytes);
    std::memcpy(slope, arrays.gradient + i * sizeof(float), bytes);
    if constexpr (kSlots >= 1) std::memcpy(first, arrays.slot0.data() + i, bytes);
    if constexpr (kSlots >= 2) std::memcpy(second, arrays.slot1.data() + i, bytes);
    Floats gradient = hn::Load(lanes, slope);
    if (clips) gradient = hn::Min(hn::Max(gradient, hn::Neg(limit)), limit);
    sweep_vector<kSlots>(formula, gradient, 0, weights, weights, first, second);
    std::memcpy(arrays.weights_out.data() + i, weights, bytes);
    if constexpr (kSlots >= 1) std::memcpy(arrays.slot0.data() + i, first, bytes);
    if constexpr (kSlots >= 2) std::memcpy(arrays.slot1.data() + i, second, bytes);
}

// Applies `formula(weights, gradient, slots&...) -> weights` to every element.
template <int kSlots, class Formula>
HWY_INLINE void sweep(const Formula& formula, float clip_value, const RuleArrays& arrays) {
    const Lanes lanes;
    const std::size_t width = hn::Lanes(lanes);
    const std::size_t elements = arrays.weights_in.size();
    const bool clips = clip_value > 0;
    const Floats limit = all(clip_value);
    const Floats lower = hn::Neg(limit);
    const float* weights_in = arrays.weights_in.data();
    float* weights_out = arrays.weights_out.data();
    float* slot0 = arrays.slot0.data();
    float* slot1 = arrays.slot1.data();
    std::size_t i = 0;
    if (clips) {
        for (; i + width <= elements; i += width) {
            const Floats slope = load_bytes(arrays.gradient + i * sizeof(float));
            sweep_vector<kSlots>(formula, hn::Min(hn::Max(slope, lower), limit), i, weights_in,
                                 weights_out, slot0, slot1);
        }
    } else {
        for (; i + width <= elements; i += width) {
            sweep_vector<kSlots>(formula, load_bytes(arrays.gradient + i * sizeof(float)), i,
                                 weights_in, weights_out, slot0, slot1);
        }
    }
    if (i < elements) sweep_tail<kSlots>(formula, limit, clips, i, arrays);
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();
#endif
