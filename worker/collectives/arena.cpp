#include "worker/collectives/arena.h"

#include <algorithm>
#include <iterator>

#include "common/invariant.h"

namespace detente {

namespace {
std::size_t rounded(std::size_t bytes) {
    return std::max<std::size_t>(1, (bytes + Arena::kAlignment - 1) / Arena::kAlignment) *
           Arena::kAlignment;
}
}  // namespace

Arena::Arena(std::size_t bytes) : bytes_(bytes) {
    if (bytes > 0) free_.emplace(0, bytes);
}

std::optional<std::size_t> Arena::take(std::size_t bytes) {
    const std::size_t wanted = rounded(bytes);
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(free_.begin(), free_.end(),
                                    [wanted](const auto& one) { return one.second >= wanted; });
    if (found == free_.end()) return std::nullopt;
    const auto [at, length] = *found;
    free_.erase(found);
    if (length > wanted) free_.emplace(at + wanted, length - wanted);
    return at;
}

void Arena::give_back(std::size_t at, std::size_t bytes) {
    std::size_t length = rounded(bytes);
    const std::lock_guard lock(mutex_);
    auto after = free_.lower_bound(at);
    invariant(after == free_.end() || after->first >= at + length, "given back once");
    if (after != free_.end() && after->first == at + length) {
        length += after->second;
        after = free_.erase(after);
    }
    if (after != free_.begin()) {
        const auto before = std::prev(after);
        invariant(before->first + before->second <= at, "given back once");
        if (before->first + before->second == at) {
            before->second += length;
            return;
        }
    }
    free_.emplace(at, length);
}

std::size_t Arena::used_bytes() const {
    const std::lock_guard lock(mutex_);
    std::size_t free_bytes = 0;
    for (const auto& [at, length] : free_) free_bytes += length;
    return bytes_ - free_bytes;
}

}  // namespace detente
