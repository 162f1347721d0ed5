// What a worker's file of a checkpoint is called (worker/kept_vectors.h says what is in it), in the
// checkpoint's folder, and, as its last word, in the folder of all checkpoints.
#pragma once

#include <cstdint>
#include <string>

#include "common/ids.h"

namespace detente {

// In a CheckpointReply, in place of a checkpoint's number (those begin at 1): of a last word.
inline constexpr std::uint64_t kLastWord = 0;

inline std::string worker_file_name(WorkerId worker) {
    return "worker-" + std::to_string(worker.value) + ".safetensors";
}

inline bool is_worker_file(const std::string& name) { return name.starts_with("worker-"); }

}  // namespace detente
