#include "common/nearest_name.h"

#include <algorithm>
#include <cstddef>

namespace detente {
namespace {

char folded(char c) {
    if (c == '-') return '_';
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// Optimal string alignment distance: Levenshtein's with swaps of neighbours. Three rows suffice.
std::size_t edits_between(std::string_view a, std::string_view b) {
    std::vector<std::size_t> before(b.size() + 1);
    std::vector<std::size_t> above(b.size() + 1);
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const bool same = folded(a[i - 1]) == folded(b[j - 1]);
            row[j] = std::min(
                {above[j] + 1, row[j - 1] + 1, above[j - 1] + std::size_t{same ? 0U : 1U}});
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                folded(a[i - 2]) == folded(b[j - 1])) {
                row[j] = std::min(row[j], before[j - 2] + 1);
            }
        }
        std::swap(before, above);
        std::swap(above, row);
    }
    return above[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view given, const std::vector<std::string>& valid) {
    const std::string* nearest = nullptr;
    std::size_t fewest = 0;
    for (const std::string& name : valid) {
        const std::size_t edits = edits_between(given, name);
        if (nearest == nullptr || edits < fewest) {
            nearest = &name;
            fewest = edits;
        }
    }
    return nearest == nullptr ? std::string() : *nearest;
}

}  // namespace detente
