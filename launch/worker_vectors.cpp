#include "launch/worker_vectors.h"

#include <fmt/format.h>

#include <filesystem>

#include "common/staleness/policy.h"
#include "common/worker_file.h"
#include "ps/checkpoint.h"

namespace detente {

namespace {

bool has_half(const PolicyConfig& config) {
    const auto policy = make_policy(config);
    return policy.has_value() && (*policy)->worker_half() != nullptr;
}

}  // namespace

bool keeps_vectors(const Job& job, const ModelDescription& model) {
    if (!model.gates.empty()) return true;
    if (has_half(job.policy)) return true;
    for (const PolicyFor& special : job.policy_for) {
        if (has_half(special.policy)) return true;
    }
    const auto method = make_aggregator(job.aggregator);
    return method.has_value() && ((*method)->needs().averages || (*method)->needs().excess);
}

void forget_last_word(WorkerId worker, const std::string& checkpoint_dir) {
    std::error_code of_no_consequence;
    std::filesystem::remove(checkpoint_dir + "/" + worker_file_name(worker), of_no_consequence);
}

Result<std::string> restore_vectors(EngineComputer& computer, WorkerId worker,
                                    const std::string& checkpoint) {
    const auto manifest = read_manifest(checkpoint);
    if (manifest.has_error()) return manifest.error();
    const std::string name = worker_file_name(worker);
    for (const CheckpointFile& file : manifest->files) {
        if (file.name != name) continue;
        if (auto whole = verify_file(checkpoint, file); whole.has_error()) return whole.error();
        return computer.restore_vectors(fmt::format("{}/{}", checkpoint, name));
    }
    return fmt::format(
        "{} has no {}: what this worker's conflict method, gates and staleness policy keep as "
        "vectors begins anew",
        checkpoint, name);
}

}  // namespace detente
