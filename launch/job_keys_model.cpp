// The keys of what is trained, and of which task may update what: [model], [[task]], [[mask]].
#include "launch/job_slots.h"
#include "worker/builtin/catalog.h"

namespace detente {
namespace {

using job_slots::at;

// "Without a library: builtin:null (…); …"
std::string builtin_text() {
    std::string text = "Without a library:";
    for (const auto& [name, meaning] : builtin_models()) {
        text += text.back() == ':' ? " builtin:" : "; builtin:";
        text.append(name).append(", ").append(meaning);
    }
    return text + ".";
}

}  // namespace

std::vector<Table> model_tables() {
    return {{"model",
             false,
             "What is trained.",
             {{"library",
               "",
               "The model library: a path (from this file's folder), or a bare name: 'x' is "
               "examples/libx.so beside the program, then libx.so beside this file. " +
                   builtin_text(),
               at(&Job::model_library),
               {},
               {},
               true},
              {"frozen", "name patterns",
               "Tensors that are never computed, pushed or versioned ('*' any run, '?' one "
               "character).",
               at(&Job::frozen)}}},
            {"model.options",
             false,
             "Handed to the model library as text; which keys there are is the library's to say.",
             {},
             [](Job& job, std::size_t) -> ParameterList& { return job.model_options; }},
            {"task",
             true,
             "A task of the model; needed only to take tensors away from it.",
             {{"name",
               "",
               "The task, as the model calls it.",
               [](Job& job, std::size_t i) -> Slot { return &job.tasks[i].name; },
               {},
               {},
               true},
              {"exclude", "name patterns", "Tensors this task must not update.",
               [](Job& job, std::size_t i) -> Slot { return &job.tasks[i].exclude; }}},
             {},
             {},
             [](Job& job, const auto&) { job.tasks.emplace_back(); },
             [](const Job& job) { return job.tasks.size(); }},
            {"mask",
             true,
             "Gives tasks parts of a tensor for themselves: its first rows stay shared by all "
             "owners, the rest is dealt out among them. The first entry that matches a name wins; "
             "`detente plan --masks RUN` writes them.",
             {{"pattern",
               "name pattern",
               "The tensors it is for.",
               [](Job& job, std::size_t i) -> Slot { return &job.masks[i].pattern; },
               {},
               {},
               true},
              {"shared",
               "",
               "Part of each tensor that stays shared; 0: every coordinate has one task.",
               [](Job& job, std::size_t i) -> Slot { return &job.masks[i].shared; },
               {0, 1}},
              {"exclusive",
               "",
               "How the rest is dealt out: in runs of whole rows, one per owner; or strided, "
               "element after element by turns.",
               [](Job& job, std::size_t i) -> Slot {
                   MaskConfig& mask = job.masks[i];
                   return ChoiceSlot{[&mask] { return static_cast<std::size_t>(mask.exclusive); },
                                     [&mask](std::size_t chosen) {
                                         mask.exclusive = static_cast<ExclusiveParts>(chosen);
                                     }};
               },
               {},
               {"runs", "strided"}}},
             {},
             {},
             [](Job& job, const auto&) { job.masks.emplace_back(); },
             [](const Job& job) { return job.masks.size(); }}};
}

}  // namespace detente
