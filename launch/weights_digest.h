// One number for all weights and versions of a run: what `digest` is in summary.json of a
// simulation, and in a replay of it.
//
// Thread: its owner's.
#pragma once

#include <cstdint>
#include <map>

#include "common/ids.h"
#include "ps/block_store.h"

namespace detente {

class WeightsDigest {
  public:
    // The block as it is now, in place of what was taken of it before. Requires: it has weights.
    void take(const LiveBlock& block);
    std::uint64_t value() const;

  private:
    std::map<BlockId, std::uint64_t> of_block_;
};

}  // namespace detente
