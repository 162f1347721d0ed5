// Which updates a restore takes back: those that the ledger of the run that made the checkpoint
// has as applied, to a version that is not in the checkpoint.
//
// What the ledger does not hold cannot be listed: a server that was killed keeps what it had
// recorded up to the last flush (every 100 ms, and at every orderly end).
//
// Blocks on the disk: called at a server's start, never on a loop.
#pragma once

#include <string>
#include <vector>

#include "common/ledger_entry.h"
#include "common/result.h"
#include "ps/checkpoint.h"

namespace detente {

struct LostUpdates {
    std::vector<LostRecord> updates;  // one per part of a push, in the order of application
    std::vector<std::string> gaps;    // sentences on what of the ledger could not be read
    std::size_t blocks() const;       // updates of one block, all together
};

// Of one shard of the checkpoint's run, whose folder the checkpoint lies in
// (RUN/checkpoints/<n>, RUN/ledger).
LostUpdates find_lost_updates(const Checkpoint& checkpoint, ShardId shard);

}  // namespace detente
