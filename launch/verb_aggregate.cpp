// detente aggregate --method M: one step of a conflict method on gradients from the standard input.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "launch/aggregate.h"
#include "launch/cli.h"
#include "launch/exit_code.h"

namespace detente {
namespace {

struct AggregateOptions {
    std::string method;
    std::vector<std::string> parameters;
    std::uint64_t seed = 0;
    bool list = false;
};

Result<AggregatorConfig> config_of(const AggregateOptions& options) {
    AggregatorConfig config{options.method, {}};
    for (const std::string& text : options.parameters) {
        const std::size_t equals = text.find('=');
        if (equals == std::string::npos || equals == 0) {
            return fail(ErrorCode::bad_job,
                        "--param takes NAME=VALUE, like --param c=0.5, but found '" + text + "'");
        }
        config.parameters.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    }
    return config;
}

int aggregate(const AggregateOptions& options) {
    if (options.list) {
        std::fputs(aggregator_list().c_str(), stdout);
        return 0;
    }
    const auto config = config_of(options);
    if (!config) return report("aggregate", config.error());
    // Refused before it waits for input.
    if (const auto made = make_aggregator(*config); !made) {
        return report("aggregate", made.error());
    }
    const std::string input((std::istreambuf_iterator<char>(std::cin)),
                            std::istreambuf_iterator<char>());
    const auto answer = aggregate_json(input, *config, options.seed);
    if (!answer) {
        // Whatever is wrong is wrong with the input.
        report("aggregate", answer.error());
        return value_of(ExitCode::usage);
    }
    std::puts(answer->c_str());
    return 0;
}

}  // namespace

void add_aggregate_verb(CLI::App& app, int& exit_code) {
    const auto options = std::make_shared<AggregateOptions>();
    CLI::App* verb = app.add_subcommand(
        "aggregate", "Resolves the conflicts of gradients given as JSON on the standard input");
    verb->add_option("--method", options->method, "The method; --list names them");
    verb->add_option("--param", options->parameters,
                     "NAME=VALUE: a parameter of the method, like --param c=0.5; may be repeated")
        ->type_name("NAME=VALUE")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    verb->add_option("--seed", options->seed, "What random methods draw from (default 0)")
        ->check(whole_number());
    verb->add_flag("--list", options->list,
                   "Prints the methods with their papers, needs and parameters");
    verb->footer(
        "Input: {\"matrix\": [[-4,1,1],[6,1,1]]}: one row per task, its gradient. Beside it\n"
        "\"losses\": [1,2] and \"matrix2\" (the gradients of an independent batch) where the "
        "method\n"
        "needs them. For methods with state {\"steps\": [{\"matrix\": …}, …]}.\n"
        "Output: weights, result, gramian, cosines, status (ok, all_zero, degenerate), and where "
        "it\n"
        "applies kkt_residual and objective; a list of these for steps.\n"
        "Example: echo '{\"matrix\": [[-4,1,1],[6,1,1]]}' | detente aggregate --method mgda");
    verb->callback([options, &exit_code] {
        if (!options->list && options->method.empty()) throw CLI::RequiredError("--method");
        exit_code = aggregate(*options);
    });
}

}  // namespace detente
