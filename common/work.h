// What a worker asks to have computed, and what comes back. Work owns its weights and names blocks
// and tasks; it knows no LibTorch. worker/engine_computer executes it over an Engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "common/conflict/aggregator.h"
#include "common/conflict/gramian.h"
#include "common/conflict/scope.h"
#include "common/ids.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

// The gradients of one step, held between the two halves of a step; opaque to nodes.
class GradientSet {
  public:
    virtual ~GradientSet() = default;
};

// First weights of every block, as parts of ComputePart (index = block id).
struct InitialWork {};

// One gradient per task at these weights. Blocks not listed keep the values of the work before.
struct GradientWork {
    Step step;
    std::vector<WeightBlock> weights;
    BatchRange batch;  // count = 1
    std::uint32_t batch_samples =
        0;  // nominal batch size; the last batch of an epoch may be shorter
    std::uint64_t random_key = 0;
    TaskSet tasks;
    // Whose needs are to be met; nullptr: the Gramian over all shared blocks.
    std::shared_ptr<const Aggregator> aggregator;
    ConflictScope scope = ConflictScope::global;
    ConflictSpace space = ConflictSpace::parameters;
    bool layers = false;  // GradientOutcome::layers is wanted, in parameter space
    // The node averages blocks in step: part i holds task i's rows of them, one tensor after the
    // other, as soon as its backward is done. Nothing is measured yet: MeasureWork follows.
    bool in_step = false;
};
// What a method is given of one group of shared blocks (all of them, a layer, a block). Tasks that
// own none of them have zeros here, and no say in the group's weights.
struct GroupInput {
    Gramian gramian;             // of the gradients, or of their averages where it works on those
    Gramian cross;               // of two halves of the batch, where needed
    std::vector<double> excess;  // per task, where needed
    TaskSet members{~std::uint64_t{0}};  // tasks that own blocks of the group
};
struct GradientOutcome {
    std::vector<double> losses;  // per task of the model
    Gramian gramian;             // over blocks that two tasks or more own, or at the trunk's output
    std::vector<GroupInput> groups;  // in block order; empty: one group, of `gramian`
    // Of the batch's gradients, by layer (common/partition/layers.h); each is what its blocks added
    // to a sum, so exact to about 1e-16 of the largest.
    std::vector<Gramian> layers;
    std::vector<double> exclusive_norms_sq;  // per task: ‖gradient‖² over blocks only it owns
    std::uint32_t samples = 0;
    std::uint64_t gradient_hash =
        0;  // XXH3 over all task gradients, for the ledger; 0 = not asked for
    std::shared_ptr<const GradientSet> gradients;
};
// What GradientWork with in_step left: rows of blocks in step become the node's averages, and all
// is measured. Ends as GradientWork does.
struct MeasureWork {
    GradientWork of;  // its weights were used and may be left out
    GradientOutcome computed;
    std::vector<Payload> averages;  // by task, as its part was; empty: no member had any, so zeros
};

// Combined gradient, written straight into push parts: ComputePart i holds layout[i]'s blocks one
// after the other. A block of one task takes that task's gradient as it is (times clip_factor).
struct CombineWork {
    std::shared_ptr<const GradientSet> gradients;
    std::vector<double> weights;  // per task
    double clip_factor = 1;
    std::vector<std::vector<BlockId>> layout;
    // Unless all blocks have `weights`: per group, as GradientOutcome has them.
    std::vector<std::vector<double>> group_weights{};
    // For a method that works coordinate by coordinate: itself, its draws, and the global norm to
    // clip to (0 = off), which is known only when it has combined, as in representation space.
    std::shared_ptr<const Aggregator> aggregator{};
    std::uint64_t random_key = 0;
    double clip_norm = 0;
    bool measured = false;  // whether its outcome says what came of each task's gradient
};
// A gradient that was rejected, carried to newer weights instead of being computed again
// (common/staleness/delay_compensation.h). Parts as of CombineWork; ends as one, too.
struct CompensateWork {
    struct Row {
        Payload gradient;  // as it was pushed
        Payload then;      // the weights it was computed at
        Payload now;
    };
    std::map<BlockId, Row> rows;  // of every block of the layout
    double lambda = 0;
    std::vector<std::vector<BlockId>> layout;
};
// What is kept as vectors from step to step (averages of moco and the like, gates' last gradients),
// for a checkpoint: part i is the i-th piece of a file (worker/kept_vectors.h). None: it is
// nothing.
struct KeptWork {};
// If it was to be measured and the layout has every shared block: per task, the product of its
// gradient with what all together are given, r, over the shared blocks; and ‖r‖². Before clipping.
struct CombineOutcome {
    std::vector<double> products;
    double result_sq = 0;
};
struct InitialOutcome {};
struct KeptOutcome {};

using Work =
    std::variant<InitialWork, GradientWork, MeasureWork, CombineWork, CompensateWork, KeptWork>;
using WorkResult =
    Result<std::variant<InitialOutcome, GradientOutcome, CombineOutcome, KeptOutcome>>;

}  // namespace detente
