// detente evaluate RUN: scores a checkpoint on the test set.
#include <memory>

#include "launch/cli.h"
#include "launch/roles.h"
#include "launch/run_verbs.h"

namespace detente {

void add_evaluate_verb(CLI::App& app, int& exit_code) {
    struct Options {
        std::string run_dir;
        std::uint64_t checkpoint = 0;
        bool json = false;
    };
    const auto options = std::make_shared<Options>();
    CLI::App* verb =
        app.add_subcommand("evaluate", "Scores a run's checkpoint on the test set, per task");
    verb->add_option("RUN", options->run_dir, "The run directory")->required();
    verb->add_option("--checkpoint", options->checkpoint, "Its number (default: the newest)")
        ->check(whole_number());
    verb->add_flag("--json", options->json, "Prints JSON");
    verb->callback([options, &exit_code] {
        exit_code = value_of(run_evaluation(options->run_dir, options->checkpoint, options->json));
    });
}

}  // namespace detente
