// What a worker's computer keeps as vectors (worker/kept_vectors.h), between checkpoints and runs.
// The same for real and simulated workers.
#pragma once

#include <string>

#include "common/config.h"
#include "common/ids.h"
#include "common/model_description.h"
#include "common/result.h"
#include "worker/engine_computer.h"

namespace detente {

// Whether its workers keep any: the conflict method does, the model has gates, or a staleness
// policy has a half in the worker.
bool keeps_vectors(const Job& job, const ModelDescription& model);

// Before a worker's first work: takes away the last word of one that had its place before, from the
// folder of the run's checkpoints. Of no consequence where that fails: a checkpoint takes the last
// word of a worker that said it has written one (CheckpointOrigin::worker_files), and that replaces
// the file.
void forget_last_word(WorkerId worker, const std::string& checkpoint_dir);

// Hands the worker what its file of the checkpoint has. The text is for its log: what begins anew,
// and why; empty = nothing does. bad_checkpoint: the file is missing or was altered; io.
Result<std::string> restore_vectors(EngineComputer& computer, WorkerId worker,
                                    const std::string& checkpoint);

}  // namespace detente
