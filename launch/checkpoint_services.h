// The two services a coordinator needs beside it, as plain calls: what a real run does on a thread
// and in a process of its own (coordinator_services.cpp), and a simulated one in its nodes
// (simulated_services.h).
#pragma once

#include <string>
#include <vector>

#include "common/messages.h"
#include "common/model_description.h"
#include "common/partition/plan.h"
#include "worker/engine.h"

namespace detente {

// Merges the shards' slices in the request's directory, and the files of so many workers, into a
// complete checkpoint. Blocks.
CheckpointReply merge_slices(const CheckpointRequest& request, const Plan& plan,
                             const ModelDescription& model, Generation generation,
                             const std::string& job_text, std::uint32_t workers);

// Loads a merged checkpoint's model.safetensors. bad_checkpoint: of another model; io.
Result<void> load_weights(Engine& engine, const std::string& path);

}  // namespace detente
