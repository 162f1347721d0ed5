#include "launch/resume_point.h"

#include "common/worker_file.h"
#include "launch/latest_checkpoint.h"
#include "ps/checkpoint.h"

namespace detente {

Result<ResumePoint> resume_point(const std::string& path, const Plan& plan,
                                 const ModelDescription& model) {
    const auto found = find_checkpoint(path);
    if (found.has_error()) return found.error();
    const auto checkpoint = Checkpoint::open(found->directory);
    if (checkpoint.has_error()) return checkpoint.error();
    if (auto fits = checkpoint->matches(plan, model); fits.has_error()) return fits.error();
    // Shards verify their slices as they read them, and a lost server ends a run at once. Workers
    // read theirs when the run has begun, so that one that is altered is told before.
    for (const CheckpointFile& file : checkpoint->manifest().files) {
        if (!is_worker_file(file.name)) continue;
        if (auto whole = verify_file(found->directory, file); whole.has_error()) {
            return whole.error();
        }
    }
    ResumePoint point;
    point.directory = found->directory;
    point.number = found->number;
    point.first_checkpoint = found->number + 1;
    point.samples_before = checkpoint->manifest().samples_applied;
    point.generation = checkpoint->manifest().generation;
    // So that (worker, incarnation, step) names one gradient in all of a training's runs.
    point.worker_incarnation = next(found->newest_incarnation);
    point.methods = checkpoint->manifest().methods;
    return point;
}

}  // namespace detente
