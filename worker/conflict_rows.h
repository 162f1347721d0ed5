// Gives a conflict method what it needs of a step's gradients (Gramians per group, averages, cross
// products, excess), and writes what it made of them. Keeps the vectors per task that methods like
// moco and excess_mtl need: T × bytes of the shared blocks, twice while a step is under way.
//
// Thread: the compute thread. Kept vectors advance when a step is combined, so that a cancelled
// computation leaves none behind. They are the worker's own; its file of a checkpoint has them
// (worker/kept_vectors.h).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/partition/layers.h"
#include "common/partition/plan.h"
#include "common/work.h"
#include "worker/held_gradients.h"

namespace detente {

class ConflictRows {
  public:
    // `names`: of the model's tensors.
    ConflictRows(std::shared_ptr<const Plan> plan, const std::vector<std::string>& names,
                 std::size_t tasks);

    // Fills gramian, groups and exclusive norms. Requires: outcome.losses are there.
    void measure(const GradientWork& work, HeldGradients& held, GradientOutcome& outcome) const;
    // The block's share of the push, times the work's clip_factor. `trunk`: in representation
    // space, what the weighed rows became on their way through it.
    void combine(const CombineWork& work, const HeldGradients& held, const TrunkGradient* trunk,
                 const Block& block, std::span<float> out) const;
    // Adds what `out`, which combine() wrote of a shared block, does for each task's gradient
    // there. Requires: as many products as tasks.
    void add_result(const HeldGradients& held, const Block& block, std::span<const float> out,
                    CombineOutcome& outcome) const;
    // How many blocks a layout must have for its result to be all of what is shared.
    std::size_t shared_blocks() const;
    // Squared length of all that combine() gives; clip_factor should be 1.
    double combined_norm_sq(const CombineWork& work, const HeldGradients& held,
                            const TrunkGradient* trunk) const;
    // In representation space: wᵀZ, Z the rows at the trunk's output. Empty: no task reaches it.
    std::vector<float> combined_representation(const CombineWork& work,
                                               const HeldGradients& held) const;
    void keep(const HeldGradients& held) {
        if (held.vectors != nullptr) kept_ = held.vectors;
    }
    const std::shared_ptr<const TaskVectors>& kept() const { return kept_; }  // null: none yet
    // Goes on from there. Requires: of this plan's blocks.
    void restore(std::shared_ptr<const TaskVectors> kept) { kept_ = std::move(kept); }

    // The group of each block under a scope, by block id; groups are numbered in block order.
    std::vector<std::size_t> groups_of(ConflictScope scope) const;

  private:
    void add_block(const GradientWork& work, const HeldGradients& held, const Block& block,
                   Gramian& total, GroupInput& group, Gramian* layer) const;
    void add_halves(const HeldGradients& held, const Block& block, Gramian& total,
                    GroupInput& group) const;
    void add_exclusive(const HeldGradients& held, const Block& block,
                       std::vector<double>& norms_sq) const;
    // The vectors after this step; `group_of` says where excess is added.
    void advance_vectors(const GradientWork& work, HeldGradients& held, GradientOutcome& outcome,
                         const std::vector<std::size_t>& group_of) const;

    std::shared_ptr<const Plan> plan_;
    std::size_t tasks_;
    SharedLayers layers_;
    std::shared_ptr<const TaskVectors> kept_;
};

}  // namespace detente
