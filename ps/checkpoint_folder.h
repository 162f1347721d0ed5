// RUN/checkpoints/: which checkpoints a run has, which to resume from, which to keep. A link `best`
// names the one with the best evaluation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace detente {

std::string checkpoint_directory(const std::string& run_directory, std::uint64_t number);

struct CheckpointNumbers {
    std::vector<std::uint64_t> complete;  // ascending
    std::vector<std::uint64_t> incomplete;
};
// What is there; nothing, if the run has no checkpoints folder. io: the folder cannot be read.
Result<CheckpointNumbers> list_checkpoints(const std::string& run_directory);

// Directory of the newest complete checkpoint. bad_checkpoint: there is none; incomplete ones are
// named.
Result<std::string> latest_checkpoint(const std::string& run_directory);

// Points the link `best` at a checkpoint, in one step.
Result<void> mark_best(const std::string& run_directory, std::uint64_t number);
std::optional<std::uint64_t> best_checkpoint(const std::string& run_directory);

// Removes all but the last `kept` complete ones and the best; and incomplete ones older than the
// newest complete (a newer one may be in the making). Returns the numbers removed. A checkpoint's
// manifest goes first, so one that is half removed is incomplete.
Result<std::vector<std::uint64_t>> prune_checkpoints(const std::string& run_directory,
                                                     std::size_t kept);

}  // namespace detente
