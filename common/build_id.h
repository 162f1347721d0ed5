// What two processes must agree on to work together: printed at the handshake when they do not.
#pragma once

#include <cstdint>
#include <string>

namespace detente {

// "0.1.0 wire 1 gcc-12.2 release": for people.
std::string build_description();
// Hash of the description: for the wire.
std::uint64_t build_id();

}  // namespace detente
