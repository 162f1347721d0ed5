// `detente plan JOB --masks RUN --shared R`: which parts of which layers stay shared, so that what
// stays conflicts least. Layers are kept in the order of their measured interference index, lowest
// first, until R of the shared parameters is reached; the last is kept in part.
//
// Thread: pure, but for reading the run's ledgers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/conflict/gramian.h"
#include "common/model_description.h"
#include "common/result.h"
#include "launch/run_directory.h"

namespace detente {

struct MaskedLayer {
    std::string layer;
    std::uint64_t parameters = 0;
    double index = 0;   // interference, measured
    double shared = 1;  // part that stays shared
};
struct MaskPlan {
    std::vector<MaskedLayer> layers;  // in the model's order
    double wanted = 1;                // of the parameters that two tasks or more update
    double index_before = 0;          // over all layers
    double index_after = 0;           // expected, over what stays shared
    std::vector<MaskConfig> masks;    // for the job
};

// `job`: its own masks are not looked at. `shared` in [0, 1]. bad_job: a layer of the job's model
// that the run did not record; and as read_resolved_steps().
Result<MaskPlan> plan_masks(const RunDirectory& run, const ModelDescription& model, Job job,
                            double shared);
std::string to_text(const MaskPlan& plan);  // a table, and the [[mask]] entries

// ---- shared with what else is planned from a run (sync_plan.h) ----
// Every layer of every step that a run recorded. not_supported: it did not record by layer.
using VisitLayer = std::function<void(const std::string& layer, const Gramian& gramian)>;
Result<void> visit_layers(const RunDirectory& run, const VisitLayer& visit);
// "trunk.conv1.*"; a tensor without a '.' is a layer by itself.
std::string pattern_of_layer(const std::string& layer, const ModelDescription& model);
Error not_recorded(const RunDirectory& run, const std::string& layer);

}  // namespace detente
