// Whole files or none: what the real runtime does with a StoreOp.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/runtime/contracts.h"

namespace detente {

// Writes the pieces to path.partial, flushes them to the disk, renames to path, flushes the folder.
// Blocks: never called on a loop's thread. A failure leaves no partial file; its text names the
// file, what was being done, and the system's reason.
Result<void> write_whole_file(const StoreOp& operation);
// The same, handing pieces back as soon as they are written, about kReleaseBytes at a time: who
// shares a large file's bytes waits for a copy of them, not for the disk.
inline constexpr std::uint64_t kReleaseBytes = 1U << 20U;
using Release = std::function<void(std::vector<Payload>&& written)>;
Result<void> write_whole_file(StoreOp&& operation, const Release& release);
// A copy, whole and flushed as if it had been written so; 1 MiB at a time is in memory.
Result<void> copy_whole_file(const std::string& from, const std::string& to);

}  // namespace detente
