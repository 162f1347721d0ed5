#include "ps/restore.h"

#include <fmt/format.h>

#include <algorithm>

#include "ps/checkpoint.h"
#include "ps/lost_updates.h"
#include "ps/task_memory.h"

namespace detente {
namespace {

// Of the shards that made the checkpoint: this shard's own predecessor, or, where blocks have
// moved, the lead shard takes over all of them.
Result<void> take_over(ShardSetup& setup, Checkpoint& checkpoint, std::vector<std::string>& gaps) {
    const std::uint32_t shards = checkpoint.manifest().shards;
    const bool same = shards == setup.plan->by_shard.size();
    if (!same && setup.id != kLeadShard) return {};
    for (std::uint32_t i = same ? setup.id.value : 0; i < (same ? setup.id.value + 1 : shards);
         ++i) {
        FormerShard former;
        former.same_blocks = same;
        auto extras = checkpoint.extras(ShardId{i});
        if (extras.has_error()) return extras.error();
        const auto table = (*extras)->find("duplicates");
        if (table != (*extras)->end()) former.duplicates = table->second;
        LostUpdates lost = find_lost_updates(checkpoint, ShardId{i});
        gaps.insert(gaps.end(), lost.gaps.begin(), lost.gaps.end());
        former.lost = std::move(lost.updates);
        setup.former.push_back(std::move(former));
    }
    return {};
}

// The decisions of a lead shard are numbered within an epoch, so all shards have to agree on it,
// whichever blocks they have, or none.
Epoch next_epoch(const Checkpoint& checkpoint) {
    Epoch newest{0};
    for (std::uint32_t i = 0; i < checkpoint.manifest().shards; ++i) {
        for (const auto& [block, at] : checkpoint.versions(ShardId{i})) {
            newest = std::max(newest, at.first);
        }
    }
    return next(newest);
}

// "a, c"
std::string names_of(const std::vector<std::string>& tasks, TaskSet of) {
    std::string names;
    for (std::uint32_t i = 0; i < tasks.size(); ++i) {
        if (of.contains(TaskId{i})) names += (names.empty() ? "" : ", ") + tasks[i];
    }
    return names.empty() ? "none" : names;
}

// [across] remembers gradients of a block's owners. One that owns it no more would be remembered
// for ever and never be pushed again. An owner that is new has nothing remembered yet, and needs
// nothing.
Result<void> owners_fit(const ShardSetup& setup, const BlockSlice& slice,
                        const std::string& directory, const ModelDescription& model) {
    const Block& block = setup.plan->block(slice.block);
    if (!remembers_tasks(*setup.job, block)) return {};
    TaskSet remembered;
    for (const SavedMemory::Task& one : slice.memory.tasks) remembered.insert(one.task);
    if (block.owners.contains_all(remembered)) return {};
    return fail(
        ErrorCode::bad_checkpoint,
        fmt::format("{}: block {} of tensor '{}': expected remembered gradients of this "
                    "job's owners only (tasks: {}), found those of tasks: {}; resume with "
                    "the [[task]] and [[mask]] entries the checkpoint was made with, or "
                    "with across.method = \"off\", which leaves out what is remembered",
                    directory, block.id.value, model.tensors[block.tensor].name,
                    names_of(model.tasks, block.owners), names_of(model.tasks, remembered)));
}

BlockContents contents_of(BlockSlice&& slice) {
    BlockContents contents;
    contents.version = slice.version;
    contents.updates = slice.updates;
    contents.samples_applied = slice.samples_applied;
    contents.policy = std::move(slice.policy);
    contents.policy_state = std::move(slice.policy_state);
    contents.vectors = std::move(slice.vectors);
    contents.memory = std::move(slice.memory);
    contents.weights = std::move(slice.weights);
    contents.slots = std::move(slice.slots);
    return contents;
}

}  // namespace

Result<std::vector<std::string>> restore_shard(ShardSetup& setup, const std::string& directory,
                                               const ModelDescription& model) {
    std::vector<std::string> gaps;
    auto checkpoint = Checkpoint::open(directory);
    if (checkpoint.has_error()) return checkpoint.error();
    if (auto fits = checkpoint->matches(*setup.plan, model); fits.has_error()) return fits.error();
    auto blocks = checkpoint->read(setup.plan->by_shard[setup.id.value]);
    if (blocks.has_error()) return blocks.error();
    setup.restored_from = directory;
    setup.epoch = std::max(setup.epoch, next_epoch(*checkpoint));
    for (BlockSlice& slice : *blocks) {
        const BlockId id = slice.block;
        if (auto fit = owners_fit(setup, slice, directory, model); !fit) return fit.error();
        setup.restored.emplace_back(id, contents_of(std::move(slice)));
    }
    auto taken = take_over(setup, *checkpoint, gaps);
    if (taken.has_error()) return taken.error();
    auto extras = checkpoint->extras(kLeadShard);
    if (extras.has_error()) return extras.error();
    if (*extras == nullptr) return gaps;
    const auto rules = (*extras)->find("rules");
    if (rules != (*extras)->end()) setup.restored_rules = rules->second;
    if (setup.id != kLeadShard) return gaps;
    const auto leases = (*extras)->find("leases");
    if (leases != (*extras)->end()) setup.restored_leases = leases->second;
    const auto policy = (*extras)->find("policy");
    if (policy != (*extras)->end()) setup.restored_policy = policy->second;
    return gaps;
}

}  // namespace detente
