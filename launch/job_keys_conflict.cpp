// The keys of conflicts between tasks: [conflict], [gates] and [across].
#include "common/conflict/aggregator.h"
#include "launch/job_keys.h"
#include "launch/job_slots.h"

namespace detente {
namespace {

using job_slots::at;
using job_slots::choice_at;

template <class Member>
auto across_at(Member AcrossConfig::*member) {
    return [member](Job& job, std::size_t) -> Slot { return &(job.across.*member); };
}

Table conflict_table() {
    return {"conflict",
            false,
            "How a worker makes one gradient of one per task. The method's own parameters stand "
            "beside it.",
            {{"method",
              "",
              "The aggregator.",
              [](Job& job, std::size_t) -> Slot { return &job.aggregator.name; },
              {},
              aggregator_names()},
             {"scope",
              "",
              "Over what it resolves: all shared blocks at once; or layer by layer (tensors whose "
              "names agree up to the last '.'); or block by block. Each has weights of its "
              "own, found for the tasks that own some of it.",
              choice_at(&Job::conflict_scope),
              {},
              {"global", "layer", "block"}},
             {"space",
              "",
              "Which gradients it sees: those of the shared parameters; or those at the trunk's "
              "output, where the model calls heads(), and then makes one backward through the "
              "trunk instead of one per task. Weights differ from parameter space's, except for "
              "methods that ignore gradients.",
              choice_at(&Job::conflict_space),
              {},
              {"parameters", "representation"}},
             {"on_not_finite",
              "",
              "NaN or Inf in a task's loss or gradient: stop the run, naming the task; or skip the "
              "step, its batch counting as done.",
              choice_at(&Job::on_not_finite),
              {},
              {"stop", "skip"}},
             {"every",
              "steps",
              "A solution may serve so many steps of a worker; 1 = each step has its own.",
              at(&Job::conflict_every),
              {1, 1e6}},
             {"drift", "",
              "Where every > 1: it serves only while the Gramian G stays near the one it was found "
              "for, ‖G − G_then‖ ≤ drift · ‖G_then‖ (Frobenius norms).",
              at(&Job::conflict_drift)}},
            [](Job& job, std::size_t) -> ParameterList& { return job.aggregator.parameters; },
            [](Job& job, std::size_t) { return aggregator_parameters(job.aggregator.name); }};
}

Table gates_table() {
    return {"gates",
            false,
            "Of a model that has gates (add_gate): sigma(a) scales what a task's gradient passes "
            "back through one, and a is learned by looking one step ahead. The a's are tensors "
            "gates.GATE.TASK: [[rule.for]] gives them a learning rate of their own, model.frozen "
            "keeps them where they are.",
            {{"enabled", "", "false: gates pass every gradient as it is, and are not trained.",
              at(&Job::gates_enabled)},
             {"initial",
              "",
              "First a of every gate; -2 passes 12 %, 0 half.",
              at(&Job::gate_initial),
              {-30, 30}}}};
}

Table across_table() {
    return {
        "across",
        false,
        "Conflicts between tasks on different workers (worker.split_tasks). The server keeps an "
        "average of each task's gradients per block that tasks share, T times their bytes "
        "(`detente plan` says how many), and takes out of an arriving gradient what points "
        "against the others'.",
        {{"method",
          "",
          "project: as PCGrad, against the other tasks' averages in the order of their numbers, "
          "as far as those can be trusted. Needs worker.split_tasks and a policy that decides "
          "per block and corrects nothing.",
          [](Job& job, std::size_t) -> Slot {
              return ChoiceSlot{[&job] { return static_cast<std::size_t>(job.across.method); },
                                [&job](std::size_t chosen) {
                                    job.across.method = static_cast<AcrossMethod>(chosen);
                                }};
          },
          {},
          {"off", "project"}},
         {"ema",
          "",
          "What an average keeps of itself at each gradient of its task; 0: only the last.",
          across_at(&AcrossConfig::ema),
          {0, 0.9999}},
         {"half_life",
          "versions",
          "How far apart the weights behind two tasks' gradients may be until what is taken out "
          "is halved.",
          across_at(&AcrossConfig::half_life),
          {1e-3, 1e9}},
         {"compensate",
          "",
          "lambda: cosines are those of the delay-compensated gradient, g + lambda g g (w - "
          "w_then), as in dc_asgd; 0: of the gradient as it came. Keeps up to 4 copies of the "
          "shared blocks per worker.",
          across_at(&AcrossConfig::compensate),
          {0, 1e6}}}};
}

}  // namespace

std::vector<Table> conflict_tables() { return {conflict_table(), gates_table(), across_table()}; }

}  // namespace detente
