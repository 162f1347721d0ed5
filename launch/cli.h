// The program's verbs, and what several of them share (launch/command_line.h runs the one asked
// for).
#pragma once

#include <CLI/CLI.hpp>

#include "launch/exit_code.h"
#include "launch/job_arguments.h"

namespace detente {

void add_job_arguments(CLI::App& verb, JobArguments& arguments);
// For options that count or seed: a whole number from 0 to 2^53, as job files take them. CLI11
// itself reads -1 into an unsigned number of 64 bits as the largest there is.
CLI::Validator whole_number();

// One per verb, in launch/verb_NAME.cpp: declares it and, in its callback, runs it and sets the
// exit code.
void add_simulate_verb(CLI::App& app, int& exit_code);
void add_fuzz_verb(CLI::App& app, int& exit_code);
void add_job_verb(CLI::App& app, int& exit_code);
void add_plan_verb(CLI::App& app, int& exit_code);
void add_explain_verb(CLI::App& app, int& exit_code);
void add_describe_verb(CLI::App& app, int& exit_code);
void add_ledger_verb(CLI::App& app, int& exit_code);
void add_replay_verb(CLI::App& app, int& exit_code);
void add_report_verb(CLI::App& app, int& exit_code);
void add_sweep_verb(CLI::App& app, int& exit_code);
void add_doctor_verb(CLI::App& app, int& exit_code);
void add_aggregate_verb(CLI::App& app, int& exit_code);

}  // namespace detente
