// Where a run goes on that is begun with --resume: the checkpoint, and what a run that follows it
// counts on from there. The same for real and simulated runs.
//
// Blocks on the disk: called before anything is started.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/ids.h"
#include "common/messages.h"
#include "common/model_description.h"
#include "common/partition/plan.h"
#include "common/result.h"

namespace detente {

struct ResumePoint {
    std::string directory;  // of the checkpoint, absolute; empty = begins anew
    std::uint64_t number = 0;
    std::uint64_t first_checkpoint = 1;
    std::uint64_t samples_before = 0;  // applied in the checkpoint
    Generation generation;             // that made it
    Incarnation worker_incarnation{1};
    std::vector<WorkerMethod> methods;  // what its workers' conflict methods remembered
};

// `path`: a run's folder, whose newest complete checkpoint it is, or a checkpoint's own.
// bad_checkpoint: there is none, it is torn, or it is of another model or plan.
Result<ResumePoint> resume_point(const std::string& path, const Plan& plan,
                                 const ModelDescription& model);

}  // namespace detente
