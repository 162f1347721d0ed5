// The blocks of one shard: weights, optimizer state, versions. A block's bytes are immutable while
// anybody shares them (a reply in flight, a checkpoint): an update works in place if nobody does,
// else into a spare from a bounded pool.
//
// Owner: the shard's loop. Use counts are exact because payloads are only dropped on that loop's
// thread. Invariants: a version grows by exactly one per apply; spares and lent buffers together
// stay within kSpareBytes (plus what one message needs).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/config.h"
#include "common/partition/plan.h"
#include "common/payload.h"
#include "common/rules/rule.h"
#include "common/staleness/policy.h"
#include "ps/policy_vectors.h"
#include "ps/task_memory.h"

namespace detente {

using SharedBuffer = std::shared_ptr<AlignedBuffer>;

struct LiveBlock {
    const Block* plan = nullptr;
    Epoch epoch{1};
    Version version;
    std::uint64_t updates = 0;  // Adam's t: optimizer state, so it survives a restore
    std::uint64_t samples_applied = 0;
    SharedBuffer weights;  // null until initialised
    SharedBuffer slots;    // the rule's arrays one after the other, each slot_floats() long
    const Rule* rule = nullptr;
    const ScheduleConfig* schedule = nullptr;
    const Policy* policy = nullptr;
    double base_learning_rate = 0;
    float clip_value = 0;
    PolicyState policy_state;
    PolicyVectors vectors;
    TaskMemory memory;  // [across]

    std::uint64_t slot_floats() const { return (plan->elements + 15) / 16 * 16; }
    Payload weight_payload() const;
    // XXH3 of the weights; made once per version, however many workers pull it.
    std::uint64_t weight_checksum();
    std::optional<std::uint64_t> known_checksum;  // none: not asked for since the last update
};

// Everything one block needs to be as it was.
struct BlockContents {
    Version version;
    std::uint64_t updates = 0;
    std::uint64_t samples_applied = 0;
    // Of the staleness policy that judged the block; another one begins anew.
    std::string policy;
    PolicyState policy_state;
    SavedVectors vectors;
    SavedMemory memory;
    Payload weights;
    std::vector<Payload> slots;
};

class BlockStore {
  public:
    static constexpr std::uint64_t kSpareBytes = 40U << 20U;

    // bad_job: a rule or policy that cannot be made.
    static Result<BlockStore> create(const Plan& plan, const Job& job, ShardId shard, Epoch epoch);

    // nullptr: not at home here.
    LiveBlock* find(BlockId id);
    const std::vector<BlockId>& ids() const { return ids_; }
    std::vector<LiveBlock>& blocks() { return blocks_; }
    std::uint32_t trainable() const { return trainable_; }
    bool initialised() const { return initialised_ == blocks_.size(); }

    // First contents of a block; the version starts at 0 (or where the checkpoint left it).
    // bad_length: other sizes than the plan's.
    Result<void> fill(LiveBlock& block, const BlockContents& contents);

    // Whether a spare is there, or none is needed, for each of these blocks.
    bool can_apply(const std::vector<LiveBlock*>& blocks);
    // Applies one gradient and bumps the version. Requires: can_apply covered it, initialised().
    void apply(LiveBlock& block, const std::byte* gradient, float step_scale,
               std::uint32_t samples);

    // One gradient of several that are averaged; `arrived` is for policies that correct it.
    struct Part {
        const std::byte* gradient = nullptr;
        float weight = 1;
        Arrived arrived;
        Version base;
        TaskSet tasks{};  // whose it is
    };
    // What the block's policy is told of a gradient that may be applied now; at_s is the caller's.
    Arrived arrival(const LiveBlock& block, WorkerId worker, Step step,
                    std::uint64_t staleness) const;
    // Whether the policy has what it needs to correct this gradient (stale weights may be gone).
    bool can_correct(const LiveBlock& block, WorkerId worker, Version base) const;
    // Corrects each part as the block's policy says, folds them into Σ weight·g / denominator,
    // applies that once. Where the job resolves across workers, a part of one task is resolved
    // first.
    void apply_parts(LiveBlock& block, const std::vector<Part>& parts, double denominator,
                     float step_scale, std::uint32_t samples);
    // What the policy measures of a staged gradient; zeros before it accepted one.
    Measured measure(LiveBlock& block, WorkerId worker, Version base, const std::byte* gradient);
    // Whether what workers are handed of it is of consequence later, so that a replay must know.
    bool remembers_pulls(const LiveBlock& block) const;
    const AcrossFigures& across() const { return across_figures_; }
    // What a pull of this worker is given; the policy may look ahead, or want a copy of it.
    Payload hand_out(LiveBlock& block, WorkerId worker);
    // The worker is gone: its vectors too. False: there were none.
    bool forget(WorkerId worker);

    // staleness.policy of the job becomes another one, which begins anew; its scope may be another
    // one. bad_job: it cannot be made, or does not go with what the job sets besides; nothing is
    // changed.
    Result<void> change_policy(const PolicyConfig& config, std::optional<Admission> admission = {});
    // The policy that decides whole steps for all shards; nullptr: each block's own decides.
    const Policy* step_policy() const { return step_policy_; }
    const Policy& job_policy() const { return *policies_.front(); }  // staleness.policy
    double learning_rate(const LiveBlock& block) const;

    // Takes back lent buffers nobody shares any more.
    void reclaim();
    // Buffers still shared by somebody outside, for messages that name the holders.
    std::size_t lent() const { return lent_.size(); }
    std::uint64_t spare_bytes() const { return spare_bytes_; }
    std::uint64_t idle_bytes() const;  // of spare_bytes(): lent to nobody
    std::uint64_t lent_bytes() const;

  private:
    Result<void> fill_policy(LiveBlock& block, const BlockContents& contents);
    Result<void> fill_memory(LiveBlock& block, const BlockContents& contents) const;
    bool resolves(const LiveBlock& block) const {
        return across_.method != AcrossMethod::off && block.plan->trainable() &&
               block.plan->shared();
    }
    // The part's gradient, resolved.
    const std::byte* resolved(LiveBlock& block, const Part& part);
    static bool forget(LiveBlock& block, WorkerId worker);
    SharedBuffer take_spare(std::uint64_t bytes);
    bool room_for(std::uint64_t bytes) const;

    std::vector<std::unique_ptr<const Rule>> rules_;
    std::vector<std::unique_ptr<const Policy>> policies_;
    const Policy* step_policy_ = nullptr;
    AcrossConfig across_;
    Admission admission_ = Admission::block;  // as the last change has it
    AcrossFigures across_figures_;
    std::vector<float> scratch_;  // a corrected gradient
    std::vector<float> beside_;   // what resolving it needs
    std::vector<double> folded_;  // their sum
    std::vector<float> before_;   // weights before an update, where the policy wants them
    std::vector<ScheduleConfig> schedules_;
    std::vector<BlockId> ids_;
    std::vector<LiveBlock> blocks_;
    std::vector<std::uint32_t> index_of_;  // by block id; kNowhere = not at home
    std::unordered_map<std::uint64_t, std::vector<SharedBuffer>> spares_;  // by size
    std::vector<SharedBuffer> lent_;
    std::uint64_t spare_bytes_ = 0;  // spares and lent together
    std::uint64_t spare_limit_bytes_ = kSpareBytes;
    std::uint32_t trainable_ = 0;
    std::uint32_t workers_ = 0;
    std::size_t initialised_ = 0;
};

}  // namespace detente
