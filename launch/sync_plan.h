// `detente plan JOB --sync RUN` and sync.layers = "auto": which layers workers of a node keep in
// step, so that averages are taken where the tasks' gradients conflict most. Layers are taken in
// the order of their measured mean cosine, most negative first, as long as they hold no more than
// the wanted part of the shared parameters; the first is taken whatever it holds.
//
// Thread: pure, but for reading the run's ledgers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/model_description.h"
#include "common/result.h"
#include "launch/run_directory.h"

namespace detente {

struct MeasuredLayer {
    std::string layer;
    std::uint64_t parameters = 0;
    double cosine = 0;    // mean over steps and pairs of tasks
    double negative = 0;  // share of the steps in which some pair's is below zero
    bool in_step = false;
};
struct SyncPlan {
    std::vector<MeasuredLayer> layers;  // in the model's order
    double part = 0.5;                  // of the shared parameters, at most
    std::vector<std::string> patterns;  // for sync.layers
};

// Errors as plan_masks().
Result<SyncPlan> plan_sync(const RunDirectory& run, const ModelDescription& model, Job job,
                           double part);
std::string to_text(const SyncPlan& plan);  // a table, and the [sync] table of a job

// Puts the measured layers in place of "auto"; nothing to do for others. bad_job: "auto" beside
// other patterns, or without sync.measured; or more tasks than averages may be in flight.
Result<void> resolve_sync_layers(Job& job, const ModelDescription& model);

}  // namespace detente
