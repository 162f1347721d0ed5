// Which valid name a mistyped one most likely meant, for errors about names in job files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace detente {

// The entry of `valid` with the fewest single-character edits and neighbour swaps from `given`
// (upper and lower case, '-' and '_' count as equal; the first one wins a tie). Always an entry,
// however far; empty only if `valid` is.
std::string nearest_name(std::string_view given, const std::vector<std::string>& valid);

}  // namespace detente
