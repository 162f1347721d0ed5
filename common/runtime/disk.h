// Whole files or none: what the real runtime does with a StoreOp.
#pragma once

#include "common/result.h"
#include "common/runtime/contracts.h"

namespace detente {

// Writes the pieces to path.partial, flushes them to the disk, renames to path, flushes the folder.
// Blocks: never called on a loop's thread. A failure leaves no partial file; its text names the
// file, what was being done, and the system's reason.
Result<void> write_whole_file(const StoreOp& operation);

}  // namespace detente
