// Which block lives where. Tensors are cut into blocks (contiguous, bounded in bytes, the same for
// any number of shards) and blocks are placed on shards by size. The plan is a pure function of the
// model description and the job, so every node computes it for itself.
//
// Blocks are cut at multiples of kTileElements (common/conflict/gramian.h), so that sums folded
// tile by tile do not depend on the block size. Under a mask ([[mask]]) a tensor is cut into
// stretches first: one that all its owners update, by rows, then one per owner; a stretch's tiles
// are counted from its own beginning. What is not shared is dealt out by rows, or element after
// element by turns (exclusive = "strided"): such an owner's elements lie apart in the tensor, but
// side by side in its blocks, as everywhere but in the model itself (stored_order.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/conflict/gramian.h"
#include "common/ids.h"
#include "common/model_description.h"
#include "common/result.h"

namespace detente {

struct Block {
    BlockId id;                // dense from 0, in (tensor, offset) order
    std::uint32_t tensor = 0;  // index into ModelDescription::tensors
    // First element in stored order: a tensor's blocks one after the other.
    std::uint64_t offset = 0;
    std::uint64_t elements = 0;
    // Its k-th element is element first + k · stride of the tensor.
    std::uint64_t first = 0;
    std::uint64_t stride = 1;
    TaskSet owners;       // tasks that may update it
    bool frozen = false;  // has a home and a value, never a push
    // The workers of a node average its gradients and push them once, as [sync] says.
    bool in_step = false;
    ShardId home;
    std::uint32_t rule = 0;    // index: 0 = the job's rule, i + 1 = job.rule_for[i]
    std::uint32_t policy = 0;  // likewise for job.policy_for
    std::uint64_t bytes() const { return elements * sizeof(float); }
    // Two owners or more: enters the Gramian.
    bool shared() const { return owners.count() >= 2; }
    // Is computed, pushed and versioned.
    bool trainable() const { return !frozen && !owners.empty(); }
};

struct Plan {
    std::vector<Block> blocks;                   // index is BlockId
    std::vector<std::vector<BlockId>> by_shard;  // ascending ids
    std::vector<std::uint64_t> shard_bytes;
    std::uint64_t parameters = 0;

    const Block& block(BlockId id) const { return blocks[id.value]; }
    // Largest shard's bytes over the mean; 1 is perfect.
    double imbalance() const;
};

// Placement: blocks by falling size, ties by id, each to the shard with the fewest bytes so far,
// ties to the lowest shard (greedy longest-processing-time; Graham 1969: within 4/3 of the best).
// bad_job: a pattern in rule_for/policy_for/frozen/tasks.exclude that matches no tensor (naming the
// nearest tensor name), a task name the model does not have, block_bytes no multiple of a tile.
Result<Plan> make_plan(const ModelDescription& model, const Job& job);

// What `detente plan` prints: a line per block and the balance.
std::string describe(const Plan& plan, const ModelDescription& model);

}  // namespace detente
