#include "launch/shard_invariants.h"

#include <fmt/core.h>

namespace detente {

std::optional<std::string> ShardInvariants::check(NodeId id, Shard& shard) {
    const Books& books = shard.books();
    const bool balanced = books.computed == books.applied + books.rejected + books.cancelled +
                                                books.lost + books.in_flight;
    if (!balanced) return books.balance(to_string(id)).error().text;
    if (!shard.store().initialised()) return std::nullopt;
    auto& last = last_[id];
    last.resize(shard.store().blocks().size());
    std::size_t i = 0;
    for (const LiveBlock& block : shard.store().blocks()) {
        const std::pair now{block.epoch, block.version};
        if (now < last[i]) {
            return fmt::format("block {} went back from version {} to {}", block.plan->id.value,
                               last[i].second.value, now.second.value);
        }
        last[i++] = now;
    }
    return std::nullopt;
}

}  // namespace detente
