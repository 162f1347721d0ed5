// `detente explain RUN --step N`: which pairs of tasks conflicted in a step, in which layers, and
// what the conflict method did to whom; from what the workers recorded (launch/conflict_ledger.h).
//
// Thread: pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/conflict_ledger.h"

namespace detente {

// The step as numbers. They follow from the Gramians and the weights: with r = Σ wₜgₜ,
// gᵢ·r = Σ wₜGᵢₜ; under scope layer, layer by layer. Where the weights multiply averages that the
// method keeps (moco, db_mtl), or there are none (graddrop), or groups are narrower than what was
// recorded, gᵢ·r is what the worker measured as it combined.
struct ExplainedStep {
    std::string method;
    Weighs weighs = Weighs::gradients;
    std::vector<std::string> tasks;
    ResolvedStep step;
    // Names of the groups of conflict.scope, one per list of weights: layers where there is one of
    // each, else counted in the plan's order. Empty: one list stands for all.
    std::vector<std::string> groups;
    struct Pair {
        std::size_t a = 0;
        std::size_t b = 0;
        double cosine = 0;  // over all that is shared
        struct InLayer {
            std::string layer;
            double cosine = 0;
        };
        std::vector<InLayer> layers;  // that both update, where layers were recorded
    };
    std::vector<Pair> pairs;  // that share something; the most opposed first
    struct OfTask {
        double length = 0;  // ‖gᵢ‖ over what is shared
        // Cosine of gᵢ with the plain sum of all gradients, and with what the method made; none
        // where that is not known: only a part of what is shared was computed again.
        double with_sum = 0;
        std::optional<double> with_result;
        // gᵢ·r / gᵢ·Σg: what the step does for the task's loss, to first order, beside what the
        // sum would have done; none where the sum does nothing for it.
        std::optional<double> progress;
    };
    std::vector<OfTask> of_tasks;
};

ExplainedStep explain(const NamesRecord& names, ResolvedStep step);
std::string to_text(const ExplainedStep& explained);
std::string to_json(const ExplainedStep& explained);

}  // namespace detente
