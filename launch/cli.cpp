#include "launch/cli.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <optional>

#include "common/build_id.h"
#include "common/nearest_name.h"
#include "launch/command_line.h"
#include "launch/job.h"
#include "launch/run_verbs.h"

namespace detente {
namespace {

std::string exit_code_table() {
    std::string text = "Exit codes:\n";
    for (const ExitCode code : {ExitCode::ok, ExitCode::bug, ExitCode::usage, ExitCode::model,
                                ExitCode::process_lost, ExitCode::deadline, ExitCode::books,
                                ExitCode::io, ExitCode::checkpoint, ExitCode::build_mismatch,
                                ExitCode::invariant, ExitCode::interrupted, ExitCode::terminated}) {
        const std::string number = std::to_string(value_of(code));
        text += std::string(5 - number.size(), ' ') + number + "  " + meaning_of(code) + "\n";
    }
    return text;
}

// The first word, where it is no verb: CLI11 would only say that one is missing.
std::optional<std::string> unknown_verb(const CLI::App& app, int argc, char** argv) {
    if (argc < 2 || argv[1][0] == '-') return {};
    const std::string given = argv[1];
    std::vector<std::string> verbs;
    std::string list;
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (verb->get_name() == given) return {};
        if (verb->get_group().empty()) continue;  // what only the launcher starts
        verbs.push_back(verb->get_name());
        list += (list.empty() ? "" : ", ") + verb->get_name();
    }
    return "detente: no verb '" + given + "'; did you mean '" + nearest_name(given, verbs) +
           "'? There are: " + list + "\n";
}

// "detente run: JOB is required; see detente run --help"
std::string usage_error(const CLI::App* app, const CLI::Error& error) {
    std::string command = "detente";
    for (const CLI::App* verb : app->get_subcommands()) command += " " + verb->get_name();
    return command + ": " + error.what() + "; see " + command + " --help\n";
}

}  // namespace

void add_job_arguments(CLI::App& verb, JobArguments& arguments) {
    verb.add_option("JOB", arguments.job_file, "The job file (TOML)")->required();
    verb.add_option("--set", arguments.overrides,
                    "KEY=VALUE: overrides the job file, like --set workers=2; may be repeated. "
                    "Another policy or method drops the parameters of the one it replaces")
        ->type_name("KEY=VALUE")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
}

Result<Job> read_job(const JobArguments& arguments) {
    return read_job(arguments.job_file, arguments.overrides, program_folder());
}

CLI::Validator whole_number() {
    static constexpr std::uint64_t kHighest = 1ULL << 53U;
    return {[](const std::string& text) -> std::string {
                std::uint64_t number = 0;
                const char* end = text.data() + text.size();
                const auto read = std::from_chars(text.data(), end, number);
                if (read.ec == std::errc() && read.ptr == end && number <= kHighest) return "";
                return fmt::format("must be a whole number from 0 to {}, found '{}'", kHighest,
                                   text);
            },
            ""};
}

int report(const std::string& verb, const Error& error) {
    std::fprintf(stderr, "detente %s: %s\n", verb.c_str(), error.text.c_str());
    return value_of(exit_code_of(error.code));
}

int run_command_line(int argc, char** argv) {
    CLI::App app{"Détente trains shared models on many tasks at once, asynchronously.", "detente"};
    app.set_version_flag("--version", build_description());
    app.require_subcommand(1);
    app.footer(exit_code_table());
    int exit_code = 0;
    add_run_verb(app, exit_code);
    add_join_verb(app, exit_code);
    add_simulate_verb(app, exit_code);
    add_fuzz_verb(app, exit_code);
    add_evaluate_verb(app, exit_code);
    add_control_verb(app, exit_code);
    add_job_verb(app, exit_code);
    add_plan_verb(app, exit_code);
    add_explain_verb(app, exit_code);
    add_describe_verb(app, exit_code);
    add_ledger_verb(app, exit_code);
    add_replay_verb(app, exit_code);
    add_sweep_verb(app, exit_code);
    add_report_verb(app, exit_code);
    add_aggregate_verb(app, exit_code);
    add_doctor_verb(app, exit_code);
    add_server_verb(app, exit_code);
    add_worker_verb(app, exit_code);
    app.failure_message(usage_error);
    if (const auto wrong = unknown_verb(app, argc, argv)) {
        std::fputs(wrong->c_str(), stderr);
        return value_of(ExitCode::usage);
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        // CLI11's own codes vary by kind of mistake; ours do not.
        return app.exit(error) == 0 ? 0 : value_of(ExitCode::usage);
    }
    return exit_code;
}

}  // namespace detente
