// Pairs of tasks layer by layer over a whole run: which layers they get in each other's way in.
// Counted from what the workers recorded of each step (ledger.conflicts = "layers").
//
// Thread: pure reading.
#pragma once

#include <string>
#include <vector>

#include "common/result.h"
#include "launch/cluster_view.h"
#include "launch/run_directory.h"

namespace detente {

struct LayerPairs {
    std::string layer;
    std::vector<PairSummary> pairs;  // those that met there; over the steps in which they did
};

// Layers in the order of the model. Empty where nothing was recorded by layer: one task, no ledger,
// ledger.conflicts = "whole" or "off". io, bad_message: a ledger that is not readable.
Result<std::vector<LayerPairs>> read_layer_pairs(const RunDirectory& run);

}  // namespace detente
