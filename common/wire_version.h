// Grows with every change of the bytes on the wire; peers of different versions refuse each other.
#pragma once

#include <cstdint>

namespace detente {
inline constexpr std::uint32_t kWireVersion = 8;
}
