// What the conflict kernels share: the virtual lanes and the fused multiply-add. Included once per
// instruction set by Highway's foreach_target, hence the guard that toggles.
#if defined(DETENTE_CONFLICT_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DETENTE_CONFLICT_LANES_INL_H
#undef DETENTE_CONFLICT_LANES_INL_H
#else
#define DETENTE_CONFLICT_LANES_INL_H
#endif

#include <hwy/highway.h>

#include <cmath>
#include <cstddef>
#include <cstring>

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

// Gradients are frames' bytes: they may lie at odd addresses, where a plain float access is
// undefined.
HWY_INLINE FloatVector load_anywhere(const float* from) {
#if HWY_TARGET == HWY_SCALAR
    float value;
    std::memcpy(&value, static_cast<const void*>(from), sizeof(value));
    return hn::Set(Floats(), value);
#else
    return hn::LoadU(Floats(), from);
#endif
}
HWY_INLINE void store_anywhere(FloatVector vector, float* to) {
#if HWY_TARGET == HWY_SCALAR
    std::memcpy(static_cast<void*>(to), &vector.raw, sizeof(float));
#else
    hn::StoreU(vector, Floats(), to);
#endif
}

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

// The 16 lanes in double: lane l with l + 8, then l + 4, l + 2, l + 1.
HWY_INLINE double fold(const float* lanes) {
    constexpr std::size_t kQuarter = kLanes / 4;
    const hn::CappedTag<double, kQuarter> d;
    const hn::Rebind<float, decltype(d)> narrow;
    const auto wide = [&](std::size_t l)
                          HWY_ATTR { return hn::PromoteTo(d, hn::Load(narrow, lanes + l)); };
    HWY_ALIGN double s[kQuarter];
    for (std::size_t l = 0; l < kQuarter; l += hn::Lanes(d)) {
        hn::Store(hn::Add(hn::Add(wide(l), wide(l + 8)), hn::Add(wide(l + 4), wide(l + 12))), d,
                  s + l);
    }
    return (s[0] + s[2]) + (s[1] + s[3]);
}

}  // namespace detente::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled guard
