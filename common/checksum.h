// What a receiver checks of a block's bytes before it trusts them: that they are the bytes that
// were sent (XXH3, 64 bits), and that every float in them is finite. Pure functions, any thread;
// bytes at any address, because frames arrive at odd ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/result.h"

namespace detente {

// XXH3-64 of the bytes, as it travels in headers and lies in files.
std::uint64_t checksum_of(std::span<const std::byte> bytes);

// Whether no float is NaN or infinite. Requires: whole floats (a size divisible by 4).
bool all_finite(std::span<const std::byte> float32_bytes);
// Index of the first float that is NaN or infinite; none if all are finite. Requires: whole floats.
std::optional<std::size_t> first_not_finite(std::span<const std::byte> float32_bytes);

// Both checks in one pass over memory. `expected` is absent where the transport runs without
// checksums. Refused: bad_length (no whole floats), bad_checksum (also if some float is not finite:
// what was altered on its way is not the sender's mistake), not_finite (names the first element).
Result<void> verify_block(std::span<const std::byte> float32_bytes,
                          std::optional<std::uint64_t> expected);

}  // namespace detente
