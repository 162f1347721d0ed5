// What a server remembers of each task's gradients of one block that tasks share, and how it
// resolves one task's arriving gradient against the others' where tasks are computed by different
// workers ([across]).
//
// Kept per task: m, an average of its gradients (float, as long as the block, from its first one
// on), the newest version any of them was computed at, and one row of the Gramian of all averages
// (double). A gradient g of task i, computed at version b, arrives:
//   row:      ⟨g, m_j⟩ of every task and ⟨g, g⟩, one pass over all of them;
//   project:  as PCGrad (Yu 2020, algorithm 1), but with averages for the others' gradients and
//             their order fixed, by ascending task: where ⟨g', m_j⟩ < 0, g' being what is left of
//             g by then,
//                 g' ← g' − c · ⟨g', m_j⟩ / ‖m_j‖² · m_j,    c = 0.5^(|b − b_j| / half_life);
//   remember: m_i ← ema · m_i + (1 − ema) · g, with g as it came; the first is g itself.
// So the other workers' gradients are believed the less, the further apart the weights are that
// they were computed at. The Gramian follows from the rows, so that no pass is made over the
// averages alone.
//
// With compensate = λ > 0 the cosine is that of h = g + λ·g⊙g⊙(w − w_b) (Zheng 2017, eq. 10;
// common/staleness/delay_compensation.h), the gradient as it would be now: where ⟨h', m_j⟩ ≥ 0, h'
// being h less what was taken out of g by then, there is no conflict, and nothing is taken out. It
// decides no more than that. What is taken out is of g, which is what is applied, by g's own
// product: h's would take out a part that g does not have. Where only h opposes m_j there is
// nothing of g to take out.
//
// Bits: a function of the block's applied gradients in their order, whatever the number of shards.
// Owner: the shard's loop. In checkpoints, but for copies of weights; vectors that a checkpoint
// shares are copied before they are next written to.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/config.h"
#include "common/ids.h"
#include "common/partition/plan.h"
#include "common/payload.h"
#include "common/staleness/policy.h"
#include "ps/policy_vectors.h"

namespace detente {

// Of all tasks of one block; a task's mean is as long as the block.
struct SavedMemory {
    struct Task {
        TaskId task;
        Version version;
        Payload mean;
    };
    std::vector<Task> tasks;                          // ascending
    std::vector<double> gramian;                      // of their means, row by row
    bool operator==(const SavedMemory& other) const;  // means by their bits
};

// What came of resolving, added up over gradients.
struct AcrossFigures {
    std::uint64_t arrived = 0;    // gradients of shared blocks
    std::uint64_t projected = 0;  // of those, changed
    // Cosines of an arriving gradient with another task's average.
    struct Cosines {
        std::uint64_t count = 0;
        std::uint64_t negative = 0;
        double sum = 0;
    };
    // Of each pair of tasks, whichever of the two arrived; the first has the lower number.
    std::map<std::pair<TaskId, TaskId>, Cosines> pairs{};

    Cosines of_all_pairs() const;
};

class TaskMemory {
  public:
    // One gradient of one task of this block.
    struct Arrival {
        TaskId task;
        Version base;
        std::span<const float> weights;  // now …
        std::span<const float> stale;    // … and at `base`; empty: not known, or not asked for
    };
    // Resolves the gradient in place and remembers it as it came, unless its products are out of
    // range (gramian.h). `scratch` is overwritten. Requires: always of the same length.
    void resolve(const AcrossConfig& across, const Arrival& arrival, std::span<float> gradient,
                 std::vector<float>& scratch, AcrossFigures& figures);

    // Weights that workers were handed, for `compensate`.
    PolicyVectors& copies() { return copies_; }
    const PolicyVectors& copies() const { return copies_; }

    SavedMemory save() const;
    // Requires: means of whole floats, a Gramian of as many rows as there are tasks.
    void restore(const SavedMemory& saved);

  private:
    struct Remembered {
        TaskId task;
        Version version;
        std::shared_ptr<std::vector<float>> mean;
    };
    // The inner products of a gradient with each average and with itself.
    struct Row {
        std::vector<double> products;
        double length_sq = 0;
    };
    Row row_of(std::span<const float> gradient) const;
    // What of each average is added to the gradient whose row is `own`; `seen`: of which the
    // cosines are.
    std::vector<double> projection(const AcrossConfig& across, const Arrival& arrival,
                                   const Row& own, const Row& seen, AcrossFigures& figures) const;
    void remember(double ema, const Arrival& arrival, std::span<const float> gradient,
                  const Row& row);

    std::vector<Remembered> tasks_;  // ascending
    std::vector<double> gramian_;    // of their means, row by row
    PolicyVectors copies_;
};

// Whether gradients judged by this policy may be resolved so: it decides per block, and changes and
// keeps nothing of them.
bool fits_across(const Policy& policy);

// Whether the job keeps a memory of this block.
bool remembers_tasks(const Job& job, const Block& block);
// Bytes of it, all tasks together; of copies of weights, if every worker has as many as there may
// be.
std::uint64_t memory_bytes(const Job& job, const Plan& plan);
std::uint64_t copy_bytes(const Job& job, const Plan& plan);

}  // namespace detente
