// The two services a coordinator needs beside it, as plain calls: what a real run does on a thread
// and in a process of its own (coordinator_services.cpp), and a simulated one in its nodes
// (simulated_services.h).
#pragma once

#include <string>
#include <vector>

#include "common/messages.h"
#include "common/model_description.h"
#include "common/partition/plan.h"
#include "ps/checkpoint.h"
#include "worker/engine.h"

namespace detente {

// Merges the shards' slices in the request's directory, and the workers' files, into a complete
// checkpoint. Number and methods of `origin` are the request's. Blocks.
CheckpointReply merge_slices(const CheckpointRequest& request, const Plan& plan,
                             const ModelDescription& model, CheckpointOrigin origin);

// Loads a merged checkpoint's model.safetensors. bad_checkpoint: of another model; io.
Result<void> load_weights(Engine& engine, const std::string& path);

}  // namespace detente
