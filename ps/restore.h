// What a checkpoint has for a shard of a job: its blocks under the job's plan, what its predecessor
// remembered, and what had been applied after the checkpoint and is lost.
//
// Blocks on the disk: called before a shard's loop runs.
#pragma once

#include <string>
#include <vector>

#include "common/model_description.h"
#include "common/result.h"
#include "ps/shard.h"

namespace detente {

// Fills `setup` (id, job and plan are set) from the checkpoint in `directory`; the epoch becomes
// one above all of its epochs, on every shard the same. Gives what could not be listed, for the
// log. bad_checkpoint: incomplete, altered, of another model.
Result<std::vector<std::string>> restore_shard(ShardSetup& setup, const std::string& directory,
                                               const ModelDescription& model);

}  // namespace detente
