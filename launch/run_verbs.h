// The verbs that a run is made of; see launch/cli.h for the rest.
#pragma once

#include <CLI/CLI.hpp>

#include "launch/run.h"

namespace detente {

void add_run_verb(CLI::App& app, int& exit_code);
void add_join_verb(CLI::App& app, int& exit_code);
void add_server_verb(CLI::App& app, int& exit_code);  // started by run; not for people
void add_worker_verb(CLI::App& app, int& exit_code);  // started by run; not for people
void add_evaluate_verb(CLI::App& app, int& exit_code);
void add_control_verb(CLI::App& app, int& exit_code);

// What run and join share: JOB, --set, --out, --resume.
void add_run_options(CLI::App& verb, RunOptions& options);

}  // namespace detente
