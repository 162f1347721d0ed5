// Which checkpoint a path means: a checkpoint's own folder, or the newest complete one of a run.
#pragma once

#include <cstdint>
#include <string>

#include "common/ids.h"
#include "common/result.h"

namespace detente {

struct FoundCheckpoint {
    std::uint64_t number = 0;
    std::string directory;              // absolute
    Incarnation newest_incarnation{0};  // of the workers whose gradients are in it
};

// bad_checkpoint: neither, or the run has no complete one; the text says what was looked for.
Result<FoundCheckpoint> find_checkpoint(const std::string& path);

}  // namespace detente
