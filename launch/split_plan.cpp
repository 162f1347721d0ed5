#include "launch/split_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/partition/task_placement.h"
#include "ps/task_memory.h"

namespace detente {

std::string describe_split(const Plan& plan, const ModelDescription& model, const Job& job) {
    if (!job.split_tasks) return {};
    std::string text = describe(
        place_tasks(model.tasks, trained_tasks(plan), all_workers(job.workers)), model.tasks);
    if (job.across.method == AcrossMethod::off) return text;
    std::uint64_t shared = 0;
    int most = 0;
    for (const Block& block : plan.blocks) {
        if (!remembers_tasks(job, block)) continue;
        shared += block.bytes();
        most = std::max(most, block.owners.count());
    }
    text += fmt::format(
        "across.method = project: servers remember a gradient per task of shared blocks: {} bytes "
        "of them, up to {} tasks each, {} bytes in all\n",
        shared, most, memory_bytes(job, plan));
    if (job.across.compensate > 0) {
        text += fmt::format("across.compensate: and up to {} copies of them per worker, {} bytes\n",
                            PolicyVectors::kMostCopies, copy_bytes(job, plan));
    }
    return text;
}

}  // namespace detente
