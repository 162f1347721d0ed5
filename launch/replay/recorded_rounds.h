// The rounds in which a node's workers averaged gradients of layers in step, out of the ledgers of
// these workers: who brought what, computed at which versions, and who went on with the averages.
//
// Thread: pure reading.
#pragma once

#include <string>

#include "common/result.h"
#include "launch/replay/recording.h"
#include "ps/ledger.h"

namespace detente {

// A worker's whole ledger, what its conflict method went on from included. not_supported: a library
// summed the averages, in an order of its own.
Result<void> read_rounds(const std::string& path, LedgerReader& reader, Recording& recording);

// When all are read: leaves of the rounds those that became averages. bad_message:
// ledgers that do not fit together.
Result<void> settle_rounds(Recording& recording);

}  // namespace detente
