#include "common/rules/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/checksum.cpp"
#include "hwy/foreach_target.h"
//
#include <cstring>

#include "common/checksum.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace detente {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A float32 is NaN or infinite exactly if its exponent bits are all ones, so the largest exponent
// field says it for all; the mask clears the sign, so signed comparison orders them.
bool exponents_finite(const std::byte* bytes, std::size_t count) {
    constexpr std::int32_t kExponent = 0x7F800000;
    const hn::ScalableTag<std::int32_t> lanes;
    const auto mask = hn::Set(lanes, kExponent);
    const auto masked = [&](std::size_t element) {
        const std::byte* at = bytes + element * sizeof(float);
#if HWY_TARGET == HWY_SCALAR
        std::int32_t bits = 0;
        std::memcpy(&bits, at, sizeof(bits));
        return hn::And(hn::Set(lanes, bits), mask);
#else
        const hn::ScalableTag<std::uint8_t> octets;
        const auto raw = hn::LoadU(octets, reinterpret_cast<const std::uint8_t*>(at));
        return hn::And(hn::BitCast(lanes, raw), mask);
#endif
    };
    auto a = hn::Zero(lanes);
    auto b = a;
    auto c = a;
    auto d = a;
    const std::size_t width = hn::Lanes(lanes);
    std::size_t i = 0;
    for (; i + 4 * width <= count; i += 4 * width) {
        a = hn::Max(a, masked(i));
        b = hn::Max(b, masked(i + width));
        c = hn::Max(c, masked(i + 2 * width));
        d = hn::Max(d, masked(i + 3 * width));
    }
    for (; i + width <= count; i += width) a = hn::Max(a, masked(i));
    a = hn::Max(hn::Max(a, b), hn::Max(c, d));
    bool finite = hn::AllFalse(lanes, hn::Eq(a, mask));
    for (; i < count; ++i) {
        std::int32_t bits = 0;
        std::memcpy(&bits, bytes + i * sizeof(float), sizeof(bits));
        finite = finite && (bits & kExponent) != kExponent;
    }
    return finite;
}

}  // namespace HWY_NAMESPACE
}  // namespace detente
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/format.h>
// Shows XXH3_state_t, so that it can lie on the stack.
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
// Picks the widest instruction set when the program runs; installed only where the library has it.
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#endif

#include <algorithm>

#include "common/invariant.h"

namespace detente {
namespace {
HWY_EXPORT(exponents_finite);

// Small enough to stay in a core's nearest cache from one check to the next: a block in the outer
// caches is verified a third faster than in tiles of 32 KiB.
constexpr std::size_t kTileBytes = 8 << 10;

float float_at(std::span<const std::byte> bytes, std::size_t element) {
    float value = 0;
    std::memcpy(&value, bytes.data() + element * sizeof(float), sizeof(value));
    return value;
}

struct Looked {
    std::optional<std::size_t> bad_tile;  // where the first tile with a NaN or infinity begins
    std::uint64_t checksum = 0;           // if it was asked for
};

// One pass over memory, tile by tile. A block of one tile is hashed at one go: beginning and
// ending a hash in pieces costs as much as hashing some KiB.
Looked look_at(std::span<const std::byte> bytes, bool wants_checksum) {
    Looked looked;
    if (bytes.size() <= kTileBytes) {
        if (!all_finite(bytes)) looked.bad_tile = 0;
        if (wants_checksum) looked.checksum = checksum_of(bytes);
        return looked;
    }
    XXH3_state_t state;
    if (wants_checksum) XXH3_64bits_reset(&state);
    for (std::size_t from = 0; from < bytes.size(); from += kTileBytes) {
        const auto tile = bytes.subspan(from, std::min(kTileBytes, bytes.size() - from));
        if (!looked.bad_tile && !all_finite(tile)) looked.bad_tile = from;
        if (wants_checksum) {
            XXH3_64bits_update(&state, tile.data(), tile.size());
        } else if (looked.bad_tile) {
            break;
        }
    }
    if (wants_checksum) looked.checksum = XXH3_64bits_digest(&state);
    return looked;
}

}  // namespace

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

bool all_finite(std::span<const std::byte> float32_bytes) {
    invariant(float32_bytes.size() % sizeof(float) == 0, "finiteness is asked of whole floats");
    return HWY_DYNAMIC_DISPATCH(exponents_finite)(float32_bytes.data(),
                                                  float32_bytes.size() / sizeof(float));
}

std::optional<std::size_t> first_not_finite(std::span<const std::byte> float32_bytes) {
    for (std::size_t from = 0; from < float32_bytes.size(); from += kTileBytes) {
        const std::size_t length = std::min(kTileBytes, float32_bytes.size() - from);
        if (all_finite(float32_bytes.subspan(from, length))) continue;
        for (std::size_t i = from / sizeof(float); i < (from + length) / sizeof(float); ++i) {
            if (!all_finite(float32_bytes.subspan(i * sizeof(float), sizeof(float)))) return i;
        }
    }
    return std::nullopt;
}

Result<void> verify_block(std::span<const std::byte> float32_bytes,
                          std::optional<std::uint64_t> expected) {
    if (float32_bytes.size() % sizeof(float) != 0) {
        return fail(
            ErrorCode::bad_length,
            fmt::format("expected whole 4-byte floats, found {} bytes", float32_bytes.size()));
    }
    const Looked looked = look_at(float32_bytes, expected.has_value());
    const std::optional<std::size_t> bad_tile = looked.bad_tile;
    if (expected) {
        const std::uint64_t found = looked.checksum;
        if (found != *expected) {
            return fail(ErrorCode::bad_checksum,
                        fmt::format("expected checksum {:016x} over {} bytes, found {:016x}: the "
                                    "bytes were altered on their way",
                                    *expected, float32_bytes.size(), found));
        }
    }
    if (!bad_tile) return {};
    const std::size_t element =
        *bad_tile / sizeof(float) + *first_not_finite(float32_bytes.subspan(*bad_tile));
    return fail(ErrorCode::not_finite,
                fmt::format("expected finite floats, found {} at element {} of {}: the sender's "
                            "loss or gradient overflowed",
                            float_at(float32_bytes, element), element,
                            float32_bytes.size() / sizeof(float)));
}

}  // namespace detente
#endif
