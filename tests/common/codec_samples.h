// Messages to try the codec with: every kind, every field drawn at random within its bounds, by
// reflection over the domain structs, so that a field added later is tried and compared too.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "common/codec/codec.h"
#include "common/messages.h"
#include "common/random.h"

namespace detente {

// How values are drawn: everything empty and 0; every number at its largest; or a mixture.
enum class Sample { zeros, largest, mixed };

inline constexpr std::size_t kKinds = std::variant_size_v<Body>;
// A message of the `kind`-th alternative of Body. Requires: kind < kKinds.
Message sample_message(std::size_t kind, Sample sample, Random& random);

// Empty if equal, else the path of the first field that differs ("body.blocks[3].version").
// Payloads are compared by their bytes.
std::string difference(const Message& a, const Message& b);

// Flips bits, overwrites words with tempting values, cuts, inserts or repeats runs of bytes.
void mutate(std::vector<std::byte>& bytes, Random& random);

}  // namespace detente
